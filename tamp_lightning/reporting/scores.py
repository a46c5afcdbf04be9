"""Scores of a run with 95 % intervals clustered by picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tamp_lightning.errors import InputError
from tamp_lightning.metrics.compare import PairedDifference, paired_difference
from tamp_lightning.metrics.intervals import Interval, mean_interval, retention_difference, retention_interval


@dataclass(frozen=True)
class BenchmarkScores:
    """One benchmark, dense beside pruned; shares in [0, 1]."""

    name: str
    questions: int
    floor: float
    """What a guesser reaches that never sees the picture."""
    dense: Interval
    pruned: Interval
    change: PairedDifference
    """Pruned less dense, over the same questions."""
    retention: Interval | None
    """Percent; None where the dense model scores nothing."""
    above: Interval | None
    """Percent of what the dense model is above the floor; None where it is not."""


class Scored:
    """What the benchmarks of a run say.

    Args:
        metrics: content of metrics.json.
        rows: of predictions.parquet.
    """

    def __init__(self, metrics: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        self.metrics, self.rows = metrics, rows
        self.floor = {name: row["floor"] for name, row in metrics["benchmarks"].items()}

    @cached_property
    def benchmarks(self) -> list[BenchmarkScores]:
        """Every benchmark, in the order of metrics.json."""
        return [self._benchmark(name) for name in self.floor]

    @cached_property
    def retention(self) -> Interval | None:
        """Over all benchmarks, in percent."""
        return self._retention(self.rows, None)

    @cached_property
    def above(self) -> Interval | None:
        """The same above the blind floor; None where the dense model is not above it everywhere."""
        return self._retention(self.rows, self.floor)

    @cached_property
    def kl_interval(self) -> Interval:
        """Mean over questions of the divergence from the dense model on the answer's tokens, in nats."""
        return mean_interval([row["kl"] for row in self.rows], [row["picture"] for row in self.rows])

    @property
    def kl(self) -> float:
        """Mean divergence from the dense model on answer tokens, in nats."""
        return self.metrics["fidelity"]["kl"]

    def _benchmark(self, name: str) -> BenchmarkScores:
        rows = [row for row in self.rows if row["benchmark"] == name]
        dense, pruned, clusters = columns(rows)
        return BenchmarkScores(
            name,
            len(rows),
            self.floor[name],
            _clipped(mean_interval(dense, clusters)),
            _clipped(mean_interval(pruned, clusters)),
            paired_difference(pruned, dense, clusters),
            self._retention(rows, None),
            self._retention(rows, self.floor),
        )

    @staticmethod
    def _retention(rows: Sequence[Mapping[str, Any]], floor: Mapping[str, float] | None) -> Interval | None:
        dense, pruned, clusters = columns(rows)
        names = [row["benchmark"] for row in rows]
        for name in set(names):
            own = [score for score, other in zip(dense, names, strict=True) if other == name]
            if not sum(own) / len(own) > (0 if floor is None else floor[name]):
                return None
        return retention_interval(dense, pruned, names, clusters, floor)


def columns(rows: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float], list[Any]]:
    """Dense scores, pruned scores and pictures of the rows."""
    return [r["dense_score"] for r in rows], [r["pruned_score"] for r in rows], [r["picture"] for r in rows]


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


def paired_kl(first: Scored, second: Scored) -> Interval:
    """KL to the dense model of the first run less that of the second, mean over questions, in nats.

    Raises:
        InputError: they answered different questions.
    """
    if not same_questions(first, second):
        raise InputError("Expected two runs over the same questions and dense scores, but they differ.")
    own, other = ([row["kl"] for row in scored.rows] for scored in (first, second))
    found = paired_difference(own, other, [row["picture"] for row in first.rows])
    return Interval(found.mean, found.low, found.high)


def _clipped(interval: Interval) -> Interval:
    return Interval(interval.value, max(interval.low, 0.0), min(interval.high, 1.0))
