"""Statistics of experts, each of which sees the tokens that are routed to it."""

from __future__ import annotations

import torch
from torch import Tensor


def by_expert(index: Tensor, experts: int) -> tuple[Tensor, list[int]]:
    """Sort the pairs of token and expert by expert, tokens in their order.

    Args:
        index: [T, k] int, numbers of each token's experts; a number from `experts` on is nobody's.
        experts: how many there are.

    Returns:
        [T * k] positions in the flattened index, and the `experts + 1` bounds of each expert's share of them.
    """
    flat = index.flatten()
    counts = torch.bincount(flat, minlength=experts)[:experts]
    return flat.argsort(stable=True), [0, *counts.cumsum(0).tolist()]


def square_sums(tokens: Tensor, weights: Tensor, samples: Tensor, count: int) -> Tensor:
    """Sum over each sample's tokens of w_t x_t^2; squares in float32, sums in float64.

    Args:
        tokens: [m, c], any floating dtype.
        weights: [m], non-negative.
        samples: [m] int, ascending: which sample each token is of.
        count: number of samples.

    Returns:
        float64 [count, c]; the sum of a sample does not depend on the other samples.
    """
    sizes = torch.bincount(samples, minlength=count).tolist()
    squares, own = tokens.detach().float().square().double(), weights.double()
    return torch.stack([w @ x for w, x in zip(own.split(sizes), squares.split(sizes), strict=True)])


def shrunk(total: Tensor, mass: float, mean: Tensor, strength: float) -> tuple[Tensor, float]:
    """Draw the sum over few tokens towards what so many tokens more of the mean kind would make it.

    Args:
        total: [c], sum over `mass` tokens.
        mass: number of tokens, or sum of their weights.
        mean: [c], mean over the tokens of all experts of the layer.
        strength: how many tokens the mean counts for, at least 0.

    Returns:
        total + strength * mean, and mass + strength. With strength 0 an expert without a token gets the mean.
    """
    if mass == 0 and strength == 0:
        strength = 1.0
    return (total if strength == 0 else total + strength * mean), mass + strength
