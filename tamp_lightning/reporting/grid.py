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
        """KL to the dense model on each question's answer, mean over seeds, in nats."""
        return self._mean("kl")

    def _mean(self, column: str) -> list[float]:
        return [fmean(values) for values in zip(*([row[column] for row in run.rows] for run in self.runs), strict=True)]

    def of_runs(self, figure: str) -> list[float]:
        """A figure of each run: retention or corrected_retention in percent, or kl in nats, mean over questions."""
        if figure == "kl":
            return [fmean(row["kl"] for row in run.rows) for run in self.runs]
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


class GridResult:
    """All groups of a comparison.

    Args:
        groups: in any order; every run has the questions and dense scores of the first.
        reference: the method that others are paired with at the same sparsity.

    Raises:
        InputError: two runs answered different questions.
    """

    def __init__(self, groups: Sequence[Group], reference: str) -> None:
        self.groups = sorted(groups, key=lambda g: (g.sparsity, fmean(g.of_runs("kl"))))
        self.reference = {g.sparsity: g for g in groups if g.method == reference}
        first = self.groups[0].runs[0]
        keys = ("benchmark", "id", "picture")
        self._asked = [tuple(row[k] for k in keys) for row in first.rows]
        for run in (run for group in self.groups for run in group.runs):
            if [tuple(row[k] for k in keys) for row in run.rows] != self._asked:
                raise InputError(f"{run.folder} answered other questions than {first.folder}: they cannot be compared")
        self._dense = [row["dense_score"] for row in first.rows]

    def rows(self) -> list[dict[str, Any]]:
        """One row per group; intervals are 95 %, clustered by picture, over the questions and not the seeds."""
        return [self._row(group) for group in self.groups]

    def rank_correlation(self) -> float:
        """Spearman's rank correlation of KL and retention over all runs; NaN for fewer than three."""
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
            "kl": _over_seeds(group.of_runs("kl")) | _ends(mean_interval(group.divergence, clusters)),
            "seconds": group.seconds,
        }
        other = self.reference.get(group.sparsity)
        if other is not None and other is not group:
            kept = retention_difference(self._dense, group.scores, other.scores, names, clusters)
            moved = paired_difference(group.divergence, other.divergence, clusters)
            row["against_reference"] = {
                "retention": kept._asdict(),
                "kl": {"value": moved.mean, "low": moved.low, "high": moved.high},
            }
        return row


def _over_seeds(values: Sequence[float]) -> dict[str, float | None]:
    return {"value": fmean(values), "sd_over_seeds": stdev(values) if len(values) > 1 else None}


def _ends(interval: Interval) -> dict[str, float]:
    return {"low": interval.low, "high": interval.high}
