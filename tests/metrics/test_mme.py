"""MME's parser and points, by hand."""

import pytest
import torch

from tamp_lightning.metrics.mme import MMEScore, mme_yes_no


@pytest.mark.parametrize(
    ("reply", "said"),
    [("Yes.", "yes"), (" no, it is not", "no"), ("y", "yes"), ("N.", "no"), ("know", "no"), ("not sure", "no"),
     ("I think yes", "other"), ("x", "other"), ("", "other"), ("eyes", "yes")],
)  # fmt: skip
def test_what_a_reply_says(reply, said):
    assert mme_yes_no(reply) == said


def test_points_are_those_of_questions_and_of_pairs():
    metric = MMEScore(["p", "p", "q", "q", "r", "r"], ["OCR"] * 4 + ["count"] * 2)
    metric.update(torch.arange(6), ["yes", "no", "yes", "hm", "yes", "no"], ["yes", "no", "yes", "no", "no", "yes"])
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found["category/OCR"] == pytest.approx(75 + 50)
    assert found["category/count"] == 0
    assert (found["perception"], found["cognition"]) == (pytest.approx(125), 0)
    assert found["unparsed"] == pytest.approx(1 / 6)
