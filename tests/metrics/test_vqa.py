"""VQA soft accuracy where the golden cases do not reach."""

import pytest
import torch

from tamp_lightning.metrics import AnswerScore, scorer

ONE = torch.tensor([0])


@pytest.mark.parametrize("name", ["vqa_evalai", "vqa_vqav2_lmms", "vqa_official"])
@pytest.mark.parametrize("answers", [[], ["red"], "red"])
def test_vqa_without_other_people_to_agree_with_is_nothing(name, answers):
    """lmms-eval textvqa/utils.py: the mean over no answers is 0; one answer has no others."""
    assert scorer(name)("red", answers) == 0.0


def test_a_word_that_the_normaliser_makes_nothing_of_still_counts_where_people_said_it():
    metric = AnswerScore(1, scorer("vqa_evalai"))
    metric.update(ONE, ["The."], [["the"] * 10])
    assert metric.compute()["score"] == 1
