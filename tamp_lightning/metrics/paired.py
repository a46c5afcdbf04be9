"""Whether a pruned model is worse: an exact test of single answers, and what an interval of the difference says."""

from __future__ import annotations

import math

import torch

from tamp_lightning.metrics.compare import Scores

WORSE, BETTER, SAME, UNKNOWN = "worse", "better", "same within 1 point", "no difference shown"
POINT = 0.01


def mcnemar(dense: Scores, pruned: Scores) -> float:
    """Two-sided p of McNemar's exact test: are as many answers lost as won?

    A score of at least 0.5 is right. Of the answers that changed, each is lost or won with probability 1/2 if the
    models are equally good, whatever they agree on; p is that of a split at least as uneven (binomial, doubled, at
    most 1). It takes questions as independent, which those about one picture are not.

    Raises:
        ValueError: lengths differ.

    Examples:
        >>> mcnemar([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0])  # five lost, none won: 2 / 2**5
        0.0625
    """
    before, after = (torch.as_tensor(scores, dtype=torch.float64) for scores in (dense, pruned))
    if before.shape != after.shape:
        raise ValueError(f"Expected two equally long lists, but got {len(before)} and {len(after)}.")
    seen = ~(before.isnan() | after.isnan())
    lost = int(((before >= 0.5) & (after < 0.5) & seen).sum())
    won = int(((before < 0.5) & (after >= 0.5) & seen).sum())
    changed, term, tail = lost + won, 1, 0
    for k in range(min(lost, won) + 1):
        tail += term
        term = term * (changed - k) // (k + 1)
    return min(1.0, 2 * tail / 2**changed)


def verdict(low: float, high: float) -> str:
    """What a 95 % interval of pruned less dense says, in shares; bounds that are NaN say nothing."""
    if math.isnan(low) or math.isnan(high):
        return UNKNOWN
    if low > -POINT and high < POINT:
        return SAME
    if high < 0:
        return WORSE
    return BETTER if low > 0 else UNKNOWN
