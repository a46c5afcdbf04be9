"""95 % intervals of scores and of retention, robust to dependence within clusters (the questions of one picture)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.metrics.compare import PairedDifference, Scores, standard_error
from tamp_lightning.metrics.student import critical_value, two_sided_p


class Interval(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


def mean_interval(values: Scores, clusters: Sequence[Hashable]) -> Interval:
    """Mean of the values.

    Raises:
        ValueError: fewer than two clusters, or another number of clusters than values.
    """
    return _around(torch.as_tensor(values, dtype=torch.float64).mean().item(), values, clusters)


def retention_interval(
    dense: Scores,
    pruned: Scores,
    benchmarks: Sequence[str],
    clusters: Sequence[Hashable],
    floor: Mapping[str, float] | None = None,
) -> Interval:
    """Retention in percent (`compare.corrected_retention`), with a floor above it.

    The interval is that of the linearised figure (delta method): each sample's influence on it is a deviation, and
    deviations of one cluster are summed whatever benchmark they belong to. The floor counts as known exactly.

    Args:
        dense: scores of the dense model, [samples].
        pruned: of the pruned one on the same samples.
        benchmarks: which benchmark each sample belongs to.
        clusters: which cluster.
        floor: score of each benchmark that needs no model; None = 0.

    Raises:
        ValueError: lengths differ, fewer than two clusters, or a dense score is not above its floor.
    """
    value, influence = _linearised(dense, pruned, benchmarks, floor)
    return _around(value, influence, clusters)


def retention_difference(
    dense: Scores,
    first: Scores,
    second: Scores,
    benchmarks: Sequence[str],
    clusters: Sequence[Hashable],
    floor: Mapping[str, float] | None = None,
) -> Interval:
    """Retention of the first pruned model less that of the second, on the same samples; see `retention_interval`."""
    value, influence = _linearised(dense, first, benchmarks, floor)
    other, other_influence = _linearised(dense, second, benchmarks, floor)
    return _around(value - other, influence - other_influence, clusters)


def pooled_difference(
    dense: Scores, pruned: Scores, benchmarks: Sequence[str], clusters: Sequence[Hashable]
) -> PairedDifference:
    """Pruned less dense, the mean over benchmarks of the mean over their samples, each benchmark counting alike.

    Deviations of one cluster are summed whatever benchmark they belong to, as in `retention_interval`.

    Raises:
        ValueError: lengths differ, or fewer than two clusters.
    """
    before, after = (torch.as_tensor(scores, dtype=torch.float64) for scores in (dense, pruned))
    names, own = list(dict.fromkeys(benchmarks)), after - before
    influence, means = torch.zeros_like(own), []
    for name in names:
        rows = torch.tensor([other == name for other in benchmarks])
        means.append(own[rows].mean().item())
        influence[rows] = len(own) / (len(names) * int(rows.sum())) * (own[rows] - means[-1])
    mean, error = sum(means) / len(means), standard_error(influence, clusters)
    found = _around(mean, influence, clusters)
    t = mean / error if error > 0 else (float("inf") * mean if mean else 0.0)
    p = two_sided_p(t, len(set(clusters)) - 1)
    return PairedDifference(mean, error, found.low, found.high, t, p, len(own))


def _linearised(
    dense: Scores, pruned: Scores, benchmarks: Sequence[str], floor: Mapping[str, float] | None
) -> tuple[float, Tensor]:
    """Retention, and per sample a deviation: the standard error of their mean is that of the retention."""
    before, after = (torch.as_tensor(scores, dtype=torch.float64) for scores in (dense, pruned))
    if not len(before) == len(after) == len(benchmarks):
        raise ValueError(
            f"Expected as many scores as benchmarks, but got {len(before)}, {len(after)}, {len(benchmarks)}."
        )
    names = list(dict.fromkeys(benchmarks))
    influence, ratios = torch.zeros_like(before), []
    for name in names:
        rows = torch.tensor([own == name for own in benchmarks])
        low = 0.0 if floor is None else floor[name]
        d, p = before[rows] - low, after[rows] - low
        if not d.mean() > 0:
            raise InputError(f"Expected a dense score of {name} above its floor, but got {d.mean() + low} and {low}.")
        ratio = p.mean() / d.mean()
        ratios.append(ratio.item())
        influence[rows] = 100 / len(names) * len(before) / len(d) * (p - ratio * d) / d.mean()
    return 100 * sum(ratios) / len(ratios), influence


def _around(value: float, deviations: Scores, clusters: Sequence[Hashable]) -> Interval:
    count = len(set(clusters))
    if count < 2:
        raise InputError(f"Expected at least two clusters, but got {count}.")
    reach = critical_value(count - 1) * standard_error(deviations, clusters)
    return Interval(value, value - reach, value + reach)
