"""Activation statistics of a linear's inputs, one row per sample, padding excluded."""

import torch
from torch import Tensor

from tamp_lightning.ops.masks import keep_where

TOKENS_AT_ONCE = 512
"""Tokens of a sample that are in float64 at the same time."""


def squares(inputs: Tensor, valid: Tensor) -> Tensor:
    """x^2 in float32, zero where valid is False; linears that read the same input can share it.

    Args:
        inputs: [B, n, c], any floating dtype.
        valid: [B, n] bool, False on padding, whose values may even be infinite or NaN.

    Returns:
        float32 [B, n, c].
    """
    return keep_where(inputs.detach(), valid[..., None]).float().square_()


def weighted_sum(squared: Tensor, weights: Tensor) -> Tensor:
    """Sum over tokens of w_t x_t^2 per sample: squares in float32, weighted and summed in float64.

    A sample's sum does not depend on the other samples of its batch.

    Args:
        squared: [B, n, c] from `squares`.
        weights: [B, n], bool or non-negative float.

    Returns:
        float64 [B, c].
    """
    total = torch.zeros(squared.shape[0], 1, squared.shape[2], dtype=torch.float64, device=squared.device)
    parts = weights.double()[:, None].split(TOKENS_AT_ONCE, 2), squared.split(TOKENS_AT_ONCE, 1)
    for weight, square in zip(*parts, strict=True):
        total.baddbmm_(weight, square.double())
    return total[:, 0]


def weighted_square_sum(inputs: Tensor, weights: Tensor) -> Tensor:
    """Sum over tokens of w_t x_t^2 per sample, the statistic of Wanda-like scores.

    Args:
        inputs: [B, n, c], any floating dtype; values at weight 0 are never read, so padding may hold NaN.
        weights: [B, n], bool or non-negative float, 0 on padding.

    Returns:
        float64 [B, c].

    Raises:
        ValueError: the shapes do not agree.
    """
    if inputs.dim() != 3 or weights.shape != inputs.shape[:2]:
        shapes = f"{list(inputs.shape)} and {list(weights.shape)}"
        raise ValueError(f"inputs and weights have shapes {shapes}; expected [B, n, c] and [B, n].")
    return weighted_sum(squares(inputs, weights != 0), weights)
