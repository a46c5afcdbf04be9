"""Activation statistics of a linear's inputs, one row per sample, padding excluded."""

import torch
from torch import Tensor


def squares(inputs: Tensor, valid: Tensor) -> Tensor:
    """x^2 in float32, zero where valid is False; linears that read the same input can share it.

    Args:
        inputs: [B, n, c], any floating dtype.
        valid: [B, n] bool, False on padding, whose values may even be infinite or NaN.

    Returns:
        float32 [B, n, c].
    """
    return inputs.detach().to(torch.float32, copy=True).masked_fill_(~valid[..., None], 0).square_()


def weighted_sum(squared: Tensor, weights: Tensor) -> Tensor:
    """Sum over tokens of w_t x_t^2 per sample: products in float32, summed in float64.

    A sample's sum does not depend on the other samples of its batch.

    Args:
        squared: [B, n, c] from `squares`.
        weights: [B, n], bool or non-negative float.

    Returns:
        float64 [B, c].
    """
    return (squared * weights[..., None]).sum(1, dtype=torch.float64)


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
