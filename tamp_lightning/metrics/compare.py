"""A pruned model beside the dense one: retention, flips and paired differences."""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.metrics.student import critical_value, two_sided_p

Scores = Sequence[float] | Tensor


def retention(dense: Mapping[str, float], pruned: Mapping[str, float]) -> float:
    """100 * mean over benchmarks of pruned / dense, in percent; ratios above 1 are not clipped.

    A mean of ratios, so MME's scale of 2000 weighs no more than an accuracy.

    Raises:
        ValueError: if the benchmarks differ, there are none, or a dense score is not above 0.

    Examples:
        >>> retention({"pope": 0.8, "mmbench": 0.5}, {"pope": 0.4, "mmbench": 0.5})
        75.0
    """
    return corrected_retention(dense, pruned, dict.fromkeys(dense, 0.0))


def corrected_retention(dense: Mapping[str, float], pruned: Mapping[str, float], floor: Mapping[str, float]) -> float:
    """100 * mean over benchmarks of (pruned - floor) / (dense - floor), in percent; negative below the floor.

    The floor is what needs no model, or no picture: chance, or the score of a majority vote. A benchmark on
    which the dense model is not above its floor is refused, not skipped: it says nothing about pruning, and
    leaving it out silently would let the choice of benchmarks depend on the model.

    Raises:
        ValueError: if the benchmarks differ, there are none, or a dense score is not above its floor.

    Examples:
        >>> corrected_retention({"pope": 1.0}, {"pope": 0.75}, {"pope": 0.5})
        50.0
    """
    if not dense or dense.keys() != pruned.keys() or not dense.keys() <= floor.keys():
        got = f"dense {sorted(dense)}, pruned {sorted(pruned)}, floor {sorted(floor)}"
        raise ValueError(f"Expected scores of the same benchmarks, but got {got}.")
    low = {name: (dense[name], floor[name]) for name in dense if not dense[name] > floor[name]}
    if low:
        raise InputError(f"Expected dense scores above their floor, but got (score, floor) {low}.")
    ratios = [(pruned[name] - floor[name]) / (dense[name] - floor[name]) for name in dense]
    return 100 * sum(ratios) / len(ratios)


def flips(a: Scores, b: Scores) -> float:
    """Share of samples that are right in one and wrong in the other (Dutta et al. 2024), in [0, 1].

    A score of at least 0.5 is right. Samples that are NaN in either are left out.

    Raises:
        ValueError: if lengths differ or no sample is left.

    Examples:
        >>> flips([1, 0, 1, 0], [1, 1, 0, 0])
        0.5
    """
    first, second, _ = _both_seen(a, b)
    return ((first >= 0.5) != (second >= 0.5)).double().mean().item()


class PairedDifference(NamedTuple):
    """Mean of a - b over paired samples; the 95 % interval is ``low`` to ``high``, ``p`` is two-sided."""

    mean: float
    stderr: float
    low: float
    high: float
    t: float
    p: float
    num_samples: int


def paired_difference(a: Scores, b: Scores, clusters: Sequence[Hashable] | None = None) -> PairedDifference:
    """Mean of a - b with its standard error, 95 % interval and t-test.

    Samples that are NaN in either are left out. With `clusters` (e.g. the picture of each question) samples
    of a cluster may depend on each other: the standard error is that of `standard_error`, with clusters - 1
    degrees of freedom instead of samples - 1. It needs many clusters: with few the interval is too narrow.

    Raises:
        ValueError: if lengths differ, or fewer than two samples, or clusters, are left.

    Source: lmms-eval api/metrics.py, paired_ttest.
    """
    first, second, kept = _both_seen(a, b)
    difference = first - second
    labels = None
    if clusters is not None:
        if len(clusters) != len(kept):
            raise ValueError(f"Expected one cluster per sample ({len(kept)}), but got {len(clusters)}.")
        labels = [label for label, keep in zip(clusters, kept.tolist(), strict=True) if keep]
    stderr = standard_error(difference, labels)
    df = (len(difference) if labels is None else len(set(labels))) - 1
    if df < 1:
        raise InputError("Expected at least two clusters, but got one.")
    mean = difference.mean().item()
    t = mean / stderr if stderr > 0 else (float("inf") * mean if mean else 0.0)
    reach = critical_value(df) * stderr
    return PairedDifference(mean, stderr, mean - reach, mean + reach, t, two_sided_p(t, df), len(difference))


def standard_error(values: Scores, clusters: Sequence[Hashable] | None = None) -> float:
    """Standard error of a mean, robust to dependence within clusters.

    Without clusters s / sqrt(n). With them the square grows by the products of the deviations of different
    samples of a cluster, summed and divided by n**2 (Miller 2024, arXiv 2411.00640, equation 4).

    Raises:
        ValueError: for fewer than two values, or another number of clusters.

    Source: lmms-eval api/metrics.py, clustered_stderr.
    """
    scores = torch.as_tensor(values, dtype=torch.float64)
    n = len(scores)
    if n < 2:
        raise InputError(f"Expected at least two samples, but got {n}.")
    deviation = scores - scores.mean()
    squares = deviation.square().sum()
    variance = squares / (n - 1) / n
    if clusters is not None:
        if len(clusters) != n:
            raise ValueError(f"Expected one cluster per sample ({n}), but got {len(clusters)}.")
        number = {label: position for position, label in enumerate(dict.fromkeys(clusters))}
        member = torch.tensor([number[label] for label in clusters])
        sums = torch.zeros(len(number), dtype=torch.float64).index_add(0, member, deviation)
        variance = variance + (sums.square().sum() - squares) / n**2
    return variance.clamp(min=0).sqrt().item()


def _both_seen(a: Scores, b: Scores) -> tuple[Tensor, Tensor, Tensor]:
    first, second = (torch.as_tensor(scores, dtype=torch.float64) for scores in (a, b))
    if first.shape != second.shape or first.dim() != 1:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"Expected two equally long lists, but got {shapes}.")
    kept = ~(first.isnan() | second.isnan())
    if not kept.any():
        raise InputError("Expected samples seen by both, but there are none.")
    return first[kept], second[kept], kept
