"""Importance of every weight of a linear; a larger score is kept longer."""

import torch
from torch import Tensor


def magnitude(weight: Tensor) -> Tensor:
    """Absolute weight in float32, [o, c]."""
    return weight.detach().float().abs()


def wanda(weight: Tensor, sq_norm: Tensor) -> Tensor:
    """|W| times the norm of each input feature (Wanda, arXiv 2306.11695, equation 1).

    Args:
        weight: [o, c], any floating dtype.
        sq_norm: [c], sum or mean over tokens of x_c^2. A constant factor changes no ranking.

    Returns:
        float32 [o, c].

    Raises:
        ValueError: sq_norm does not have one entry per input feature.

    Examples:
        >>> wanda(torch.tensor([[1.0, -3.0], [2.0, 0.5]]), torch.tensor([16.0, 1.0])).tolist()
        [[4.0, 3.0], [8.0, 0.5]]
    """
    return magnitude(weight).mul_(_feature_norm(weight, sq_norm))


def ria(weight: Tensor, sq_norm: Tensor, power: float = 0.5) -> Tensor:
    """Relative importance times activations (RIA, Zhang et al., ICLR 2024).

    (|W_rc| / sum_r |W_rc| + |W_rc| / sum_c |W_rc|) * sqrt(sq_norm_c) ** power; a zero weight scores 0.

    Args:
        weight: [o, c], any floating dtype.
        sq_norm: [c], sum or mean over tokens of x_c^2.
        power: exponent of the feature norm; 0 ignores activations.

    Returns:
        float32 [o, c].

    Raises:
        ValueError: sq_norm does not have one entry per input feature.
    """
    size = magnitude(weight)
    tiny = torch.finfo(size.dtype).tiny
    column = size.sum(0, keepdim=True).clamp_(min=tiny)
    row = size.sum(1, keepdim=True).clamp_(min=tiny)
    return (size / column).add_(size / row).mul_(_feature_norm(weight, sq_norm).pow(power))


def _feature_norm(weight: Tensor, sq_norm: Tensor) -> Tensor:
    expected = list(weight.shape[1:])
    if list(sq_norm.shape) != expected:
        raise ValueError(f"sq_norm has shape {list(sq_norm.shape)}; expected {expected}, one per input feature.")
    return sq_norm.to(weight.device).sqrt().float()
