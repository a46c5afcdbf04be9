"""Activation statistics of a linear's inputs, one row per sample, padding excluded."""

import torch
from torch import Tensor

from tamp_lightning.ops.masks import keep_where

TOKENS_AT_ONCE = 512
"""Tokens of a sample that are in float64 at the same time."""


def weighted_square_sum(inputs: Tensor, weights: Tensor) -> Tensor:
    """Sum over tokens of w_t x_t^2 per sample, the statistic of Wanda-like scores.

    Squares in float32, weighted and summed in float64. A sample's sum does not depend on the other samples of its
    batch. Where most tokens have weight 0 the others are gathered first, so that a few cost little.

    Args:
        inputs: [B, n, c], any floating dtype; values at weight 0 are never read, so padding may hold NaN.
        weights: [B, n], bool or non-negative float, 0 on padding.

    Returns:
        float64 [B, c].

    Raises:
        ValueError: the shapes do not agree.

    Examples:
        >>> weighted_square_sum(torch.tensor([[[1.0, 2], [3, 4]]]), torch.tensor([[1.0, 0.5]]))
        tensor([[ 5.5000, 12.0000]], dtype=torch.float64)
    """
    if inputs.dim() != 3 or weights.shape != inputs.shape[:2]:
        shapes = f"{list(inputs.shape)} and {list(weights.shape)}"
        raise ValueError(f"inputs and weights have shapes {shapes}; expected [B, n, c] and [B, n].")
    inputs, weights = _counted(inputs.detach(), weights)
    total = inputs.new_zeros(len(inputs), 1, inputs.shape[2], dtype=torch.float64)
    for weight, part in zip(weights.split(TOKENS_AT_ONCE, 1), inputs.split(TOKENS_AT_ONCE, 1), strict=True):
        square = keep_where(part, (weight != 0)[..., None]).float().square_()
        total.baddbmm_(weight.double()[:, None], square.double())
    return total[:, 0]


def _counted(inputs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and weights without most of the tokens that no sample counts, if these are the majority."""
    if inputs.is_cuda:  # reading is cheap there, waiting for the number of tokens is not
        return inputs, weights
    counts = weights != 0
    most = int(counts.sum(1).max()) if counts.numel() else 0
    if most > counts.shape[1] // 2:
        return inputs, weights
    first = counts.byte().sort(dim=1, descending=True, stable=True).indices[:, :most]
    return inputs.gather(1, first[..., None].expand(-1, -1, inputs.shape[2])), weights.gather(1, first)
