"""Accuracy of the option that a reply names."""

import pytest
import torch

from tamp_lightning.metrics import ChoiceAccuracy, extractor

FOUR = ["cat", "dog", "cow", "owl"]


def test_unparsed_replies_are_counted_whatever_they_are_scored_as():
    def result(**settings):
        metric = ChoiceAccuracy(4, extractor("vlmevalkit"), **settings)
        replies = ["A", "hm", "Cannot determine the answer", "B"]
        metric.update(torch.arange(4), replies, torch.tensor([0, 2, 1, 0]), [FOUR] * 4)
        return {name: value.item() for name, value in metric.compute().items()}

    assert result() == {"accuracy": 0.25, "unparsed": 0.5, "coverage": 1}
    assert result(fallback=2) == {"accuracy": 0.5, "unparsed": 0.5, "coverage": 1}
    assert result(unparsed="skip") == {"accuracy": 0.5, "unparsed": 0.5, "coverage": 1}


def test_a_reply_cut_off_is_wrong_and_not_unparsed():
    metric = ChoiceAccuracy(3, extractor("letter_dot"))
    metric.update(torch.tensor([0, 1]), ["A", "??"], torch.tensor([0, 0]), [["a", "b"]] * 2)
    metric.cut(torch.tensor([2]))
    found = metric.compute()
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["unparsed"] == pytest.approx(1 / 3)
    assert found["coverage"] == 1
