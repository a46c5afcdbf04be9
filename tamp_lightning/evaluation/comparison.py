"""A pruned model beside the dense one: scores with 95 % intervals clustered by picture."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tamp_lightning.metrics.compare import PairedDifference, paired_difference
from tamp_lightning.metrics.intervals import Interval, mean_interval, pooled_difference, retention_interval
from tamp_lightning.metrics.paired import mcnemar, verdict

NAN = float("nan")
Rows = Sequence[Mapping[str, Any]]
UNITS: dict[str, Callable[[Sequence[float]], float]] = {
    "all": min,
    "pair": lambda scores: (sum(scores) / len(scores) + min(scores)) / 2,
}
"""How the scores of a unit's questions become one: CircularEval, and MME's pairs (in half its points)."""


def unit_rows(rows: Rows, rules: Mapping[str, str], models: Sequence[str] = ("dense", "pruned")) -> list[dict]:
    """Rows of predictions.parquet with one per unit, those left out that some model was not scored on.

    A unit is shown by a question of it that the first model has right and the last wrong, if there is one.

    Args:
        rows: one per question.
        rules: benchmark -> "each", or a rule of `UNITS`.
        models: whose scores (`<model>_score`) the rows have.
    """
    columns = [f"{model}_score" for model in models]
    units: dict[tuple[Any, ...], list[dict]] = {}
    for number, row in enumerate(rows):
        rule = rules.get(row["benchmark"], "each")
        units.setdefault((row["benchmark"], number if rule == "each" else row["unit"]), []).append(dict(row))
    found = []
    for (name, _), own in units.items():
        if any(row[column] is None for row in own for column in columns):
            continue
        together = UNITS.get(rules.get(name, "each"))
        if together is None:
            found += own
            continue
        lost = [row for row in own if row[columns[0]] >= 0.5 > row[columns[-1]]]
        scores = {column: together([row[column] for row in own]) for column in columns}
        found.append({**(lost or own)[0], **scores, "id": own[0]["unit"]})
    return found


@dataclass(frozen=True)
class BenchmarkScores:
    """One benchmark, dense beside pruned; shares in [0, 1]."""

    name: str
    questions: int
    floor: float
    """Chance level: what a guesser reaches that never sees the picture."""
    dense: Interval
    pruned: Interval
    change: PairedDifference
    """Pruned less dense, over the same questions; NaN around it where all are about one picture."""
    mcnemar: float
    """p of McNemar's exact test."""
    retention: Interval | None
    """Percent; None where the dense model scores nothing."""
    above: Interval | None
    """Percent of what the dense model is above chance; None where it is not."""

    @property
    def verdict(self) -> str:
        """What the interval of the change says."""
        return verdict(self.change.low, self.change.high)


class Scored:
    """What the benchmarks of a run say.

    Args:
        metrics: content of metrics.json.
        rows: of predictions.parquet.
    """

    def __init__(self, metrics: Mapping[str, Any], rows: Rows) -> None:
        self.metrics = metrics
        rules = {name: row.get("units", "each") for name, row in metrics["benchmarks"].items()}
        self.rows = unit_rows(rows, rules)
        self.floor = {name: row["floor"] for name, row in metrics["benchmarks"].items()}

    @classmethod
    def mean(cls, draws: Sequence[Scored]) -> Scored:
        """Score and divergence of each question, mean over several runs that answered the same."""
        found = cls(draws[0].metrics, ())
        found.rows = [_mean_row(own) for own in zip(*(scored.rows for scored in draws), strict=True)]
        return found

    @cached_property
    def benchmarks(self) -> list[BenchmarkScores]:
        """Every benchmark, in the order of metrics.json."""
        asked = {row["benchmark"] for row in self.rows}
        return [self._benchmark(name) for name in self.floor if name in asked]

    @cached_property
    def retention(self) -> Interval | None:
        """Over all benchmarks, in percent."""
        return _retention(self.rows, None)

    @cached_property
    def above(self) -> Interval | None:
        """The same above chance; None where the dense model is not above it everywhere."""
        return _retention(self.rows, self.floor)

    @cached_property
    def change(self) -> PairedDifference:
        """Pruned less dense, mean over benchmarks, each counting alike."""
        dense, pruned, clusters = columns(self.rows)
        if len(set(clusters)) < 2:
            return _unknown(pruned, dense)
        return pooled_difference(dense, pruned, [row["benchmark"] for row in self.rows], clusters)

    @property
    def verdict(self) -> str:
        """What the interval of the pooled change says."""
        return verdict(self.change.low, self.change.high)

    @cached_property
    def mcnemar(self) -> float:
        """p of McNemar's exact test over all questions."""
        dense, pruned, _ = columns(self.rows)
        return mcnemar(dense, pruned)

    @cached_property
    def kl_interval(self) -> Interval | None:
        """Mean over questions of the divergence from the dense model on the answer's tokens, in nats; None where
        replies were generated and no token was compared."""
        rows = [row for row in self.rows if row.get("kl") is not None]
        return _mean([row["kl"] for row in rows], [row["picture"] for row in rows]) if rows else None

    @property
    def kl(self) -> float | None:
        """Mean divergence from the dense model on answer tokens, in nats."""
        fidelity = self.metrics["fidelity"]
        return fidelity["kl"] if fidelity else None

    def _benchmark(self, name: str) -> BenchmarkScores:
        rows = [row for row in self.rows if row["benchmark"] == name]
        dense, pruned, clusters = columns(rows)
        several = len(set(clusters)) > 1
        return BenchmarkScores(
            name,
            len(rows),
            self.floor[name],
            _clipped(_mean(dense, clusters)),
            _clipped(_mean(pruned, clusters)),
            paired_difference(pruned, dense, clusters) if several else _unknown(pruned, dense),
            mcnemar(dense, pruned),
            _retention(rows, None),
            _retention(rows, self.floor),
        )


def _mean_row(rows: Rows) -> dict[str, Any]:
    """A question's row with the mean of its pruned scores and divergences over several runs."""
    columns = [name for name in ("pruned_score", "kl") if rows[0].get(name) is not None]
    return {**rows[0], **{name: sum(row[name] for row in rows) / len(rows) for name in columns}}


def columns(rows: Rows) -> tuple[list[float], list[float], list[Any]]:
    """Dense scores, pruned scores and pictures of the rows."""
    return [r["dense_score"] for r in rows], [r["pruned_score"] for r in rows], [r["picture"] for r in rows]


def _retention(rows: Rows, floor: Mapping[str, float] | None) -> Interval | None:
    dense, pruned, clusters = columns(rows)
    names = [row["benchmark"] for row in rows]
    ratios = []
    for name in dict.fromkeys(names):
        low = 0.0 if floor is None else floor[name]
        own = [(d, p) for d, p, other in zip(dense, pruned, names, strict=True) if other == name]
        before, after = (sum(column) / len(own) - low for column in zip(*own, strict=True))
        if not before > 0:
            return None
        ratios.append(after / before)
    if len(set(clusters)) < 2:
        return Interval(100 * sum(ratios) / len(ratios), NAN, NAN) if ratios else None
    return retention_interval(dense, pruned, names, clusters, floor)


def _mean(values: Sequence[float], clusters: Sequence[Hashable]) -> Interval:
    return mean_interval(values, clusters) if len(set(clusters)) > 1 else Interval(sum(values) / len(values), NAN, NAN)


def _unknown(pruned: Sequence[float], dense: Sequence[float]) -> PairedDifference:
    """A change of which the questions of one picture cannot say how sure it is."""
    mean = (sum(pruned) - sum(dense)) / len(dense) if dense else NAN
    return PairedDifference(mean, NAN, NAN, NAN, NAN, NAN, len(dense))


def _clipped(interval: Interval) -> Interval:
    low, high = interval.low, interval.high
    return Interval(interval.value, low if low >= 0 or low != low else 0.0, high if high <= 1 or high != high else 1.0)
