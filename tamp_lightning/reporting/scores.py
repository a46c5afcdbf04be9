"""Two runs beside each other, over the same questions."""

from __future__ import annotations

from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.comparison import BenchmarkScores, Scored, columns
from tamp_lightning.metrics.compare import paired_difference
from tamp_lightning.metrics.intervals import Interval, retention_difference

__all__ = ["BenchmarkScores", "Scored", "columns", "paired", "paired_kl", "same_questions"]


def same_questions(first: Scored, second: Scored) -> bool:
    """Whether two runs answered the same questions from the same dense scores, so that they can be paired."""
    keys = ("benchmark", "id", "picture", "dense_score")
    return [[r[k] for k in keys] for r in first.rows] == [[r[k] for k in keys] for r in second.rows]


def paired(first: Scored, second: Scored) -> Interval:
    """Retention of the first run less that of the second, in points.

    Raises:
        InputError: they answered different questions.
    """
    if not same_questions(first, second):
        raise InputError("Expected two runs over the same questions and dense scores, but they differ.")
    dense, own, clusters = columns(first.rows)
    _, other, _ = columns(second.rows)
    return retention_difference(dense, own, other, [r["benchmark"] for r in first.rows], clusters)


def paired_kl(first: Scored, second: Scored) -> Interval | None:
    """KL to the dense model of the first run less that of the second, mean over questions, in nats; None where replies
    were generated.

    Raises:
        InputError: they answered different questions.
    """
    if not same_questions(first, second):
        raise InputError("Expected two runs over the same questions and dense scores, but they differ.")
    if first.kl_interval is None or second.kl_interval is None:
        return None
    pairs = [(a, b) for a, b in zip(first.rows, second.rows, strict=True) if a.get("kl") is not None]
    own, other = [a["kl"] for a, _ in pairs], [b["kl"] for _, b in pairs]
    found = paired_difference(own, other, [a["picture"] for a, _ in pairs])
    return Interval(found.mean, found.low, found.high)
