"""What the runs of a comparison show: per method and sparsity over all seeds, and against one reference method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

import torch
from torchmetrics.functional import spearman_corrcoef

from tamp_lightning.errors import InputError
from tamp_lightning.metrics.compare import paired_difference
from tamp_lightning.metrics.intervals import Interval, mean_interval, retention_difference, retention_interval
from tamp_lightning.reporting.run import Run


@dataclass(frozen=True)
class Group:
    """One method at one sparsity: a run per calibration seed, all scored on the same questions."""

    method: str
    sparsity: float
    runs: Sequence[Run]

    @cached_property
    def scores(self) -> list[float]:
        """Score of each question, mean over seeds."""
        return self._mean("pruned_score")

    @cached_property
    def divergence(self) -> list[float]:
        """KL to the dense model on each answer that was read from probabilities, mean over seeds, in nats."""
        return self._mean("kl")

    def _mean(self, column: str) -> list[float]:
        columns = ([row[column] for row in _rows(run) if row.get(column) is not None] for run in self.runs)
        return [fmean(values) for values in zip(*columns, strict=True)]

    def of_runs(self, figure: str) -> list[float]:
        """A figure of each run: retention or corrected_retention in percent, or kl in nats, mean over questions."""
        if figure == "kl":
            return [fmean(row["kl"] for row in _rows(run) if row.get("kl") is not None) for run in self.runs]
        return [(run.metrics or {})[figure] for run in self.runs]

    @property
    def benchmarks(self) -> dict[str, float]:
        """Score of each benchmark, mean over seeds."""
        names = (self.runs[0].metrics or {})["benchmarks"]
        return {n: fmean((run.metrics or {})["benchmarks"][n]["pruned"] for run in self.runs) for n in names}

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of measuring and pruning, mean over seeds."""
        return fmean(sum(run.run["seconds"].get(walk, 0.0) for walk in ("measure", "prune")) for run in self.runs)


def _rows(run: Run) -> list[dict[str, Any]]:
    return run.scored.rows if run.scored else []


class GridResult:
    """All groups of a comparison.

    Args:
        groups: in any order; every run has the questions and dense scores of the first.
        reference: the method that others are paired with at the same sparsity.

    Raises:
        InputError: two runs answered different questions.
    """

    def __init__(self, groups: Sequence[Group], reference: str) -> None:
        first = groups[0].runs[0]
        self.has_kl = any(row.get("kl") is not None for row in _rows(first))
        self.groups = sorted(groups, key=lambda g: (g.sparsity, self._order(g)))
        self.reference = {g.sparsity: g for g in groups if g.method == reference}
        keys = ("benchmark", "id", "picture")
        self._asked = [tuple(row[k] for k in keys) for row in _rows(first)]
        self._compared = [row.get("kl") is not None for row in _rows(first)]
        for run in (run for group in self.groups for run in group.runs):
            if [tuple(row[k] for k in keys) for row in _rows(run)] != self._asked:
                raise InputError(f"{run.folder} answered other questions than {first.folder}: they cannot be compared")
        self._dense = [row["dense_score"] for row in _rows(first)]

    def _order(self, group: Group) -> float:
        """Smallest KL first; where no token was compared, largest retention."""
        return fmean(group.of_runs("kl")) if self.has_kl else -fmean(group.of_runs("retention"))

    def rows(self) -> list[dict[str, Any]]:
        """One row per group; intervals are 95 %, clustered by picture, over the questions and not the seeds."""
        return [self._row(group) for group in self.groups]

    def rank_correlation(self) -> float:
        """Spearman's rank correlation of KL and retention over all runs; NaN for fewer than three, or without KL."""
        if not self.has_kl:
            return float("nan")
        kl, kept = ([v for g in self.groups for v in g.of_runs(figure)] for figure in ("kl", "retention"))
        return float(spearman_corrcoef(torch.tensor(kl), torch.tensor(kept))) if len(kl) > 2 else float("nan")

    def _row(self, group: Group) -> dict[str, Any]:
        names, clusters = [asked[0] for asked in self._asked], [asked[2] for asked in self._asked]
        row: dict[str, Any] = {
            "method": group.method,
            "sparsity": group.sparsity,
            "seeds": len(group.runs),
            "benchmarks": group.benchmarks,
            "balanced_accuracy": fmean(group.benchmarks.values()),
            "retention": _over_seeds(group.of_runs("retention"))
            | _ends(retention_interval(self._dense, group.scores, names, clusters)),
            "corrected_retention": None if None in (above := group.of_runs("corrected_retention")) else fmean(above),
            "kl": _over_seeds(group.of_runs("kl")) | _ends(mean_interval(group.divergence, self._pictures))
            if self.has_kl
            else None,
            "seconds": group.seconds,
        }
        other = self.reference.get(group.sparsity)
        if other is not None and other is not group:
            kept = retention_difference(self._dense, group.scores, other.scores, names, clusters)
            row["against_reference"] = {"retention": kept._asdict(), "kl": self._moved(group, other)}
        return row

    @property
    def _pictures(self) -> list[Any]:
        """Of the questions that have a KL."""
        return [asked[2] for asked, compared in zip(self._asked, self._compared, strict=True) if compared]

    def _moved(self, group: Group, other: Group) -> dict[str, float] | None:
        """KL less that of the reference."""
        if not self.has_kl:
            return None
        moved = paired_difference(group.divergence, other.divergence, self._pictures)
        return {"value": moved.mean, "low": moved.low, "high": moved.high}


def _over_seeds(values: Sequence[float]) -> dict[str, float | None]:
    return {"value": fmean(values), "sd_over_seeds": stdev(values) if len(values) > 1 else None}


def _ends(interval: Interval) -> dict[str, float]:
    return {"low": interval.low, "high": interval.high}
