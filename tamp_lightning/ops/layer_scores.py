"""Sparsity of each decoder block by rules that give ratios; `ops.allocation.to_counts` makes them exact.

Every rule centres on the target, clamps to 0..1 and returns float64 [L]. The mean over blocks is the target to
within clamping and, for blocks of unequal size, weighting; `to_counts` shifts all ratios to meet the budget.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tamp_lightning.errors import InputError

Numbers = Sequence[float] | Tensor

HIGHEST = 0.99
"""Largest sparsity that AlphaPruning's scaling may give; the released code has no limit and can exceed 1."""


@torch.no_grad()
def outlier_ratio(scores: Tensor | Sequence[Tensor], m: float = 5.0) -> float:
    """Per cent of a block's weights whose score is above m times the block's mean (OWL, arXiv 2310.05175).

    Args:
        scores: Wanda scores of all linears of a decoder block, one tensor or several, any shapes; one mean is
            taken over all of them together.
        m: how many times the mean an outlier exceeds; above 0. OWL's README and TAMP use 5, its code's default is 3.

    Returns:
        0 to 100.

    Raises:
        ValueError: there is no score, one is NaN or infinite, or m is not above 0.
    """
    parts = [scores] if isinstance(scores, Tensor) else list(scores)
    total = sum(part.numel() for part in parts)
    if total == 0:
        raise InputError("there is no score to compare; a block needs at least one linear.")
    if not m > 0:
        raise InputError(f"m is {m}; it has to be above 0, such as 5.")
    mean = sum(float(part.sum(dtype=torch.float64)) for part in parts) / total
    if not math.isfinite(mean):
        raise InputError("scores hold NaN or infinity; check the weights and activations of this block.")
    return 100 * sum(int((part > m * mean).sum()) for part in parts) / total


def owl_sparsity(ratios: Numbers, sparsity: float, lam: float = 0.08) -> Tensor:
    """OWL: a block with more outliers is pruned LESS (arXiv 2310.05175, section 3.3).

    kept share = ratios scaled to a range of width 2 lam, minus their mean, plus 1 - sparsity. TAMP's port uses
    that number as the sparsity, which turns the rule upside down; this one follows OWL.

    Args:
        ratios: [L], from `outlier_ratio`, one per decoder block.
        sparsity: target mean, 0 to 1.
        lam: half the distance between the sparsest and the densest block, at least 0.

    Returns:
        float64 [L], falling as the ratio rises; all equal to the target if the ratios are.

    Raises:
        ValueError: a ratio is not finite, or sparsity or lam is out of range.
    """
    return _centred(-_finite("ratios", ratios), sparsity, "lam", lam)


def dlp_sparsity(means: Numbers, sparsity: float, alpha: float = 0.15) -> Tensor:
    """DLP: a block with a larger mean score is pruned MORE (arXiv 2505.23807, as its code has it).

    kept share = u scaled to a range of width 2 alpha, minus its mean, plus 1 - sparsity, where
    u = 1 - mean / sum of means. Activations grow with depth, so the result is close to `ramp_sparsity`.

    Args:
        means: [L], mean Wanda score over all weights of each decoder block (the paper takes the median).
        sparsity: target mean, 0 to 1.
        alpha: half the distance between the sparsest and the densest block, at least 0.

    Returns:
        float64 [L], rising with the mean score; all equal to the target if the means are.

    Raises:
        ValueError: a mean is not finite, or sparsity or alpha is out of range.
    """
    # u falls linearly in the mean, and the scaling undoes every linear map: no need to form it
    return _centred(_finite("means", means), sparsity, "alpha", alpha)


def alpha_sparsity(alphas: Numbers, sizes: Sequence[int] | Tensor, sparsity: float, epsilon: float = 0.3) -> Tensor:
    """AlphaPruning: a block with a larger alpha, so a lighter tail, is pruned MORE (arXiv 2410.10912).

    Alphas are mapped linearly to [1 - epsilon, 1 + epsilon], then scaled by one factor so that the mean weighted
    by size is the target.

    Args:
        alphas: [L], mean of `ops.spectrum.hill_alpha` over the linears of each decoder block.
        sizes: [L], prunable weights of each block, above 0.
        sparsity: target mean weighted by size, 0 to 1.
        epsilon: half the relative spread, 0 to 1. The released scripts use .3 for Wanda and .2 for SparseGPT.

    Returns:
        float64 [L], rising with alpha, at most 0.99 (or the target); all equal to the target if the alphas are.

    Raises:
        ValueError: an alpha is not finite, sizes do not fit, or sparsity or epsilon is out of range.
    """
    check_sparsity(sparsity)
    if not 0 <= epsilon <= 1:
        raise InputError(f"epsilon is {epsilon}; it has to be from 0 to 1, such as 0.3.")
    values, weights = _finite("alphas", alphas), _finite("sizes", sizes)
    if values.shape != weights.shape or not bool((weights > 0).all()):
        raise InputError(f"sizes are {weights.tolist()}; expected {len(values)} numbers above 0, one per block.")
    spread = values.max() - values.min()
    if not spread > 0:
        return torch.full_like(values, sparsity)
    factor = (values - values.min()) / spread * (2 * epsilon) + 1 - epsilon
    return (factor * (sparsity * weights.sum() / (weights * factor).sum())).clamp(max=max(HIGHEST, sparsity))


def ramp_sparsity(num_blocks: int, sparsity: float, width: float = 0.15) -> Tensor:
    """Control without data: sparsity rises linearly with depth, so that later blocks are pruned MORE.

    Args:
        num_blocks: number of decoder blocks L, at least 1.
        sparsity: target mean, 0 to 1.
        width: how far the first block lies below the target and the last above; less where 0 or 1 is nearer.

    Returns:
        float64 [L]; one block alone gets the target.

    Raises:
        ValueError: num_blocks is below 1, or sparsity or width is out of range.
    """
    if num_blocks < 1:
        raise ValueError(f"num_blocks is {num_blocks}; it has to be at least 1.")
    reach = min(width, sparsity, 1 - sparsity)
    return _centred(torch.arange(num_blocks, dtype=torch.float64), sparsity, "width", reach)


def _centred(values: Tensor, sparsity: float, name: str, half_width: float) -> Tensor:
    """Values scaled to a range of 2 half_width around a mean of `sparsity`, clamped to 0..1."""
    check_sparsity(sparsity)
    if not (math.isfinite(half_width) and half_width >= 0):
        raise InputError(f"{name} is {half_width}; it has to be at least 0, such as 0.1.")
    spread = values.max() - values.min()
    if not spread > 0:
        return torch.full_like(values, sparsity)
    scaled = (values - values.min()) / spread * (2 * half_width)
    return (scaled - scaled.mean() + sparsity).clamp(0, 1)


def _finite(name: str, values: Numbers) -> Tensor:
    numbers = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    if numbers.dim() != 1 or not len(numbers):
        raise ValueError(f"{name} have shape {list(numbers.shape)}; expected one number per block.")
    if not bool(numbers.isfinite().all()):
        raise InputError(f"{name} are {numbers.tolist()}; all have to be finite.")
    return numbers


def check_sparsity(sparsity: float) -> None:
    """Raise ValueError unless 0 <= sparsity <= 1."""
    if not 0 <= sparsity <= 1:
        raise InputError(f"sparsity is {sparsity}; it has to be from 0 to 1, such as 0.5.")
