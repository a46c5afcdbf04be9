"""ECoFLaP: how much the loss answers to noise in a linear, with forward passes only (arXiv 2310.02998)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tamp_lightning.errors import InputError


def perturbation(shape: torch.Size | Sequence[int], seed: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal noise that only shape and seed decide, so it is made again instead of stored.

    Args:
        shape: of the weight.
        seed: give every pair of linear and sample its own.
        device: where the result lies. The noise is drawn on the CPU, so that devices agree.

    Returns:
        float32, whatever the weight's dtype.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32).to(device)


@torch.no_grad()
def perturbed(weight: Tensor, seed: int, step: float) -> Tensor:
    """weight + step * noise, computed in float32 and rounded once to the weight's dtype.

    Always from the clean weight: adding and taking away in place would leave rounding errors in 16 bits.

    Args:
        weight: any shape, any floating dtype. Not changed.
        seed: of `perturbation`.
        step: +eps for the first of the two losses, -eps for the second.

    Returns:
        Like weight.
    """
    noise = perturbation(weight.shape, seed, device=weight.device)
    return noise.mul_(step).add_(weight).to(weight.dtype)


def gradient_estimate(loss_plus: Tensor | float, loss_minus: Tensor | float, eps: float = 1e-3) -> Tensor:
    """Slope of the loss along the noise: (loss_plus - loss_minus) / (2 eps), in float64.

    Args:
        loss_plus: loss at weight + eps * noise, a number or one per sample.
        loss_minus: loss at weight - eps * noise, alike.
        eps: size of the step, above 0; ECoFLaP uses 1e-3.

    Returns:
        float64, shaped like the losses.

    Raises:
        ValueError: eps is not above 0 or the shapes differ.
    """
    if not (eps > 0 and math.isfinite(eps)):
        raise InputError(f"eps is {eps}; it has to be above 0, such as 1e-3.")
    plus = torch.as_tensor(loss_plus, dtype=torch.float64)
    minus = torch.as_tensor(loss_minus, dtype=torch.float64)
    if plus.shape != minus.shape:
        raise ValueError(f"the losses have shapes {list(plus.shape)} and {list(minus.shape)}; expected the same.")
    return (plus - minus) / (2 * eps)


def sensitivity(estimates: Tensor) -> float:
    """Score of a linear for `ops.allocation.allocate`: sum over samples of |slope|; larger keeps more weights.

    Args:
        estimates: any shape, from `gradient_estimate`; add up the scores of a block's linears for one per block.

    Returns:
        At least 0.

    Raises:
        ValueError: an estimate is NaN or infinite.
    """
    total = float(estimates.abs().sum(dtype=torch.float64))
    if not math.isfinite(total):
        raise InputError("a slope of the loss is NaN or infinite; check the losses, or use a smaller eps.")
    return total
