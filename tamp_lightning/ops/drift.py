"""ATV: all text tokens, and the other tokens that a decoder block changes most (arXiv 2603.16001)."""

import math

import torch
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.ops.gram import SMALLEST_NORM
from tamp_lightning.ops.masks import keep_where

TEXT = 0
"""Modality id of text; every other id counts as non-text, all of them in one pool."""


@torch.no_grad()
def drift(hidden_in: Tensor, hidden_out: Tensor, valid: Tensor) -> Tensor:
    """How far a decoder block turns each token: 1 - cosine of the hidden state before and after it.

    Args:
        hidden_in: hidden states entering the block [B, n, h], any floating dtype; computed in float32.
        hidden_out: hidden states leaving it [B, n, h], residual included.
        valid: [B, n] bool, False on padding, whose values may even be infinite or NaN.

    Returns:
        float32 [B, n], 0 (same direction) to 2; 0 on padding. A zero hidden state has drift 1.

    Raises:
        ValueError: the shapes do not agree.
    """
    if hidden_in.dim() != 3 or hidden_out.shape != hidden_in.shape:
        shapes = f"{list(hidden_in.shape)} and {list(hidden_out.shape)}"
        raise ValueError(f"hidden_in and hidden_out have shapes {shapes}; expected the same [B, n, h].")
    _check_shape("valid", valid, list(hidden_in.shape[:2]))
    cosine = _unit_rows(hidden_in, valid).mul_(_unit_rows(hidden_out, valid)).sum(-1)
    # rounding may put the cosine of an unmoved token a little above 1
    return (1 - cosine).clamp_(min=0).masked_fill_(~valid, 0)


def drift_totals(drift: Tensor, modality: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and number of the non-text drifts of each sample; their totals' quotient is `mean_drift`.

    Per sample, so that any sharding of the samples can add them up in one order.

    Args:
        drift: [B, n] from `drift`.
        modality: [B, n], 0 text, 1 image, 2 video, 3 audio.
        valid: [B, n] bool, False on padding.

    Returns:
        float64 [B] sums and int64 [B] counts.

    Raises:
        ValueError: the shapes do not agree.
    """
    other = _non_text(drift, modality, valid)
    return torch.where(other, drift, 0).sum(-1, dtype=torch.float64), other.sum(-1)


@torch.no_grad()
def select_drifted(drift: Tensor, modality: Tensor, valid: Tensor, mean_drift: float, alpha: float = 1.0) -> Tensor:
    """All text tokens plus, per sample, the K most drifted others (ATV, arXiv 2603.16001, as its code has it).

    K = min(n_nontext, round(min(1, alpha * mean_drift) * n_text)), halves rounded to even as Python does. A
    sample without text therefore keeps nothing.

    Args:
        drift: [B, n] from `drift`; padding is never read.
        modality: [B, n], 0 text, 1 image, 2 video, 3 audio; all but text are ranked together.
        valid: [B, n] bool, False on padding.
        mean_drift: mean over the non-text tokens of all samples, one number per block (see `drift_totals`);
            0 where there are none.
        alpha: how many non-text tokens per text token and unit of drift, at least 0; 0 keeps text alone.

    Returns:
        Bool [B, n], True = counts in the statistics. Equal drifts are decided by position, first first.

    Raises:
        ValueError: the shapes do not agree, or mean_drift, alpha or a drift is not a finite number >= 0.
    """
    for name, value in (("mean_drift", mean_drift), ("alpha", alpha)):
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name} is {value}; it has to be a finite number, at least 0.")
    other = _non_text(drift, modality, valid)
    ranked = torch.where(other, drift, -1)
    if not bool((ranked.isfinite() & ((ranked >= 0) | ~other)).all()):
        raise InputError("a drift is negative, NaN or infinite; check the hidden states of this block.")
    text = valid & (modality == TEXT)
    share = min(1.0, alpha * mean_drift)
    count = torch.minimum(other.sum(-1), (text.sum(-1).double() * share).round().long())
    order = ranked.argsort(dim=-1, descending=True, stable=True)
    places = torch.arange(order.shape[-1], device=order.device)
    picked = torch.zeros_like(text).scatter_(-1, order, places < count[:, None])
    return text | picked


def _non_text(drift: Tensor, modality: Tensor, valid: Tensor) -> Tensor:
    if drift.dim() != 2:
        raise ValueError(f"drift has shape {list(drift.shape)}; expected [B, n].")
    _check_shape("modality", modality, list(drift.shape))
    _check_shape("valid", valid, list(drift.shape))
    return valid & (modality != TEXT)


def _check_shape(name: str, value: Tensor, expected: list[int]) -> None:
    if list(value.shape) != expected:
        raise ValueError(f"{name} has shape {list(value.shape)}; expected {expected}.")


def _unit_rows(tokens: Tensor, valid: Tensor) -> Tensor:
    """Tokens [B, n, d] scaled to length one in float32; padding becomes zero, whatever it held."""
    rows = keep_where(tokens.detach(), valid[..., None]).float()
    return rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_(min=SMALLEST_NORM)
