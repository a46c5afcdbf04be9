"""Means of groups."""

import torch

from tamp_lightning.metrics import AnswerScore, scorer


def test_groups_micro_and_macro():
    groups = {"task": ["a", "a", "b", None]}
    for average, expected in (("micro", 0.5), ("macro", 0.25)):
        metric = AnswerScore(4, scorer("exact"), groups, average)
        metric.update(torch.arange(4), ["x", "y", "y", "x"], ["x", "x", "x", "x"])
        result = {name: value.item() for name, value in metric.compute().items()}
        assert result == {"score": expected, "score/task/a": 0.5, "score/task/b": 0, "coverage": 1}
