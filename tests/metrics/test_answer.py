"""Scores of free answers as a table."""

import pytest
import torch

from tamp_lightning.metrics import AnswerScore, scorer

ONE = torch.tensor([0])
PEOPLE = [["a"] * 10, ["the"] * 10, ["."] * 10, ["", "red"] * 5]


@pytest.mark.parametrize("name", ["vqa_evalai", "vqa_vqav2_lmms", "vqa_official", "exact"])
@pytest.mark.parametrize("people", PEOPLE)
@pytest.mark.parametrize("reply", ["", " ", "\n"])
def test_an_empty_reply_is_wrong_whatever_people_said(name, people, reply):
    metric = AnswerScore(1, scorer(name))
    metric.update(ONE, [reply], [people])
    assert metric.compute()["score"] == 0
