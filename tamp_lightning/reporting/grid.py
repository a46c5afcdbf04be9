"""What several runs show: the mean over calibration draws, one ranking, and each against a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

import torch
from torchmetrics.functional import spearman_corrcoef

from tamp_lightning.errors import InputError
from tamp_lightning.metrics.intervals import Interval
from tamp_lightning.reporting.run import Run
from tamp_lightning.reporting.scores import Scored, paired, paired_kl, same_questions


@dataclass(frozen=True)
class Group:
    """One method at one sparsity: a run per calibration seed, all scored on the same questions."""

    method: str
    sparsity: float
    runs: Sequence[Run]
    source: str | None = None
    """Where its calibration samples come from, if not from the same as most."""

    @property
    def label(self) -> str:
        """What it is called among groups of its sparsity."""
        return f"{self.method} ({self.source})" if self.source else self.method

    @property
    def name(self) -> str:
        """What it is called among groups of other sparsities."""
        return f"{self.label} {100 * self.sparsity:.0f} %"

    @cached_property
    def draws(self) -> list[Scored]:
        """Scores of each run.

        Raises:
            InputError: a run scored nothing, or answered other questions than the first.
        """
        found = []
        for run in self.runs:
            if run.scored is None:
                raise InputError(f"{run.folder} has no scores to compare")
            found.append(run.scored)
            if not same_questions(found[0], run.scored):
                raise InputError(f"{run.folder} answered other questions than {self.runs[0].folder}: no mean of both")
        return found

    @cached_property
    def scored(self) -> Scored:
        """Score of each question, mean over seeds."""
        return Scored.mean(self.draws)

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
    """All groups of a comparison, in one order: smallest KL to the dense model first, or, where some group has none
    because replies were generated, largest retention.

    Args:
        groups: in any order.
        reference: name of the method that others are paired with, at their sparsity and with their source of
            calibration samples. Default: all are paired with the first of the ranking, whatever its sparsity.
    """

    def __init__(self, groups: Sequence[Group], reference: str | None = None) -> None:
        self.has_kl = all(group.scored.kl_interval is not None for group in groups)
        ranked = sorted(groups, key=self._order)
        self.by_method = reference is not None
        self.groups = sorted(ranked, key=lambda group: group.sparsity) if self.by_method else ranked
        self.reference = {(group.sparsity, group.source): group for group in groups if group.method == reference}

    def _order(self, group: Group) -> float:
        if self.has_kl and group.scored.kl_interval is not None:
            return group.scored.kl_interval.value
        return -_known(group.scored.retention).value

    def _other(self, group: Group) -> Group | None:
        """What a group is paired with."""
        other = self.reference.get((group.sparsity, group.source)) if self.by_method else self.groups[0]
        return None if other is group else other

    @property
    def is_paired(self) -> bool:
        """Whether every group answered the questions of its reference, with the same dense scores."""
        pairs = [(group, self._other(group)) for group in self.groups]
        return all(other is None or same_questions(group.scored, other.scored) for group, other in pairs)

    def rows(self) -> list[dict[str, Any]]:
        """One row per group; intervals are 95 %, clustered by picture, over the questions and not the seeds."""
        return [self._row(group) for group in self.groups]

    def rank_correlation(self) -> float:
        """Spearman's rank correlation of KL and retention over all runs; NaN for fewer than three, or without KL."""
        runs = [scored for group in self.groups for scored in group.draws]
        if not self.has_kl or len(runs) < 3:
            return float("nan")
        kl, kept = [_known(own.kl_interval).value for own in runs], [_known(own.retention).value for own in runs]
        return float(spearman_corrcoef(torch.tensor(kl), torch.tensor(kept)))

    def _row(self, group: Group) -> dict[str, Any]:
        row: dict[str, Any] = {
            "method": group.label,
            "name": group.name,
            "sparsity": group.sparsity,
            "seeds": len(group.runs),
            "benchmarks": group.benchmarks,
            "balanced_accuracy": fmean(group.benchmarks.values()),
            "retention": _figure(group, "retention"),
            "corrected_retention": _figure(group, "above"),
            "kl": _figure(group, "kl_interval") if self.has_kl else None,
            "seconds": group.seconds,
        }
        other = self._other(group)
        if other is not None and (moved := _against(group.scored, other.scored)):
            row["against_reference"] = moved
        return row


def _figure(group: Group, name: str) -> dict[str, float | None] | None:
    """A figure of the mean scores with its interval, and its standard deviation over the draws."""
    interval = getattr(group.scored, name)
    if interval is None:
        return None
    values = [_known(getattr(scored, name)).value for scored in group.draws]
    return interval._asdict() | {"sd_over_seeds": stdev(values) if len(values) > 1 else None}


def _against(first: Scored, second: Scored) -> dict[str, Any] | None:
    """Retention and KL less those of another; None if the questions cannot be paired or are all about one picture."""
    if not same_questions(first, second) or len({row["picture"] for row in first.rows}) < 2:
        return None
    moved = paired_kl(first, second)
    return {"retention": paired(first, second)._asdict(), "kl": moved and moved._asdict()}


def _known(interval: Interval | None) -> Interval:
    assert interval is not None  # runs that scored nothing are refused
    return interval
