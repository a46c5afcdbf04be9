"""How heavy the tail of a weight matrix's spectrum is (AlphaPruning, arXiv 2410.10912); needs no data."""

import math
from typing import Literal

import torch
from torch import Tensor

from tamp_lightning.errors import InputError

BINS = 100
"""Bins of the histogram of log10 eigenvalues whose peak gives xmin_peak."""

AROUND_PEAK = (0.95, 1.5)
"""Candidates for the tail's start, in multiples of the peak. The released code compares the first in log10
space by mistake, which leaves no lower limit."""


@torch.no_grad()
def hill_alpha(weight: Tensor, xmin: Literal["mid", "peak"] = "mid") -> float:
    """Exponent of a power law fitted to the largest eigenvalues of W^T W, by Hill's estimator.

    alpha = 1 + n / sum over the n eigenvalues >= x_min of ln(eigenvalue / x_min). A well trained matrix has a
    heavy tail, so a SMALL alpha; a random one a large alpha. A constant factor on W changes nothing.

    Args:
        weight: [o, c], any floating dtype; one singular value decomposition in float32, then O(o + c).
        xmin: where the tail starts. "mid" takes the median eigenvalue. "peak" tries the eigenvalues next to the
            most common one and takes that with the smallest Kolmogorov-Smirnov distance to its power law.

    Returns:
        Above 1; infinite if all eigenvalues of the tail are equal. Eigenvalues that are zero to within rounding
        are left out.

    Raises:
        ValueError: the weight is not a matrix, is all zero or holds NaN or infinity, or xmin is unknown.
    """
    if xmin not in ("mid", "peak"):
        raise ValueError(f"xmin is {xmin!r}; it has to be mid or peak.")
    eigenvalues = _eigenvalues(weight)
    if xmin == "mid":
        return _tail(eigenvalues[len(eigenvalues) // 2 :])[0]
    tails = [_tail(eigenvalues[start:]) for start in _candidates(eigenvalues)]
    return min(tails, key=lambda tail: tail[1])[0]


def _eigenvalues(weight: Tensor) -> Tensor:
    """Non-zero eigenvalues of W^T W, ascending, in float64 on the CPU."""
    if weight.dim() != 2 or not bool(weight.isfinite().all()) or not bool(weight.any()):
        raise InputError(f"the weight {list(weight.shape)} has to be a finite matrix that is not all zero.")
    values = torch.linalg.svdvals(weight.float()).double().cpu().flip(0)
    if not bool(values.isfinite().all()):  # too large for float32; a factor changes no exponent
        values = torch.linalg.svdvals(weight.float() / weight.float().abs().max()).double().cpu().flip(0)
    rounding = max(weight.shape) * torch.finfo(torch.float32).eps
    return values[values > rounding * values[-1]].square()


def _tail(tail: Tensor) -> tuple[float, float]:
    """Alpha and Kolmogorov-Smirnov distance of the power law that starts at the first value, ascending."""
    n = len(tail)
    logs = (tail / tail[0]).log()
    total = float(logs.sum())
    alpha = 1 + n / total if total > 0 else math.inf
    if math.isinf(alpha):
        return alpha, 1.0
    below = torch.arange(n, dtype=tail.dtype) / n
    return alpha, float((1 - torch.exp((1 - alpha) * logs) - below).abs().max())


def _candidates(eigenvalues: Tensor) -> list[int]:
    """Where the tail may start: eigenvalues around the histogram's peak, else the first one above it."""
    logs = eigenvalues.log10()
    edges = torch.linspace(float(logs[0]), float(logs[-1]), BINS + 1, dtype=logs.dtype)
    peak = 10 ** float(edges[torch.histc(logs, BINS).argmax()])
    low, high = (float(factor) * peak for factor in AROUND_PEAK)
    # a tail of one eigenvalue has no slope
    inside = ((eigenvalues >= low) & (eigenvalues <= high)).nonzero().flatten().tolist()
    starts = [i for i in inside if i < len(eigenvalues) - 1]
    return starts or [min(int((eigenvalues < peak).sum()), max(len(eigenvalues) - 2, 0))]
