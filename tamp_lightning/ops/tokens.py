"""AMIA: the tokens whose activations stand for all of them (TAMP section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tamp_lightning.ops.diversity import check_token_shapes, gram_cosine, mean_over_pairs
from tamp_lightning.ops.gram import Precision, cosine_gram
from tamp_lightning.ops.picking import Mismatch, Order, pick_until

ENTRIES_AT_ONCE = 2**27
"""Cosines in memory at the same time (float32, so half a GiB), unless a single batch has more."""


@dataclass(frozen=True)
class Picking:
    """How `select_representative` picks tokens."""

    neighbors: int = 3
    """Nearest tokens with which a token exchanges attention; at least 0."""
    forward_decay: float = 1.0
    """How fast attention received from a neighbour falls with cosine distance; at least 0."""
    reverse_decay: float = 0.2
    """How fast the penalty on a picked token's neighbours falls with cosine distance; at least 0."""
    bandwidth: float = 1.0
    """Sigma of the Gaussian kernel that compares picked tokens with all tokens; above 0."""
    threshold: float = 0.1
    """Picking stops at squared MMD < threshold * sqrt(1 - density); smaller picks more tokens."""
    positive_only: bool = False
    """Density over positive cosines only within a modality, as the released code does; slower."""
    max_tokens: int | None = None
    """Choose among so many tokens of a sample, those the last one attends to most; at least 1. Default: all."""
    precision: Precision = "exact"
    """Of the products of tokens: exact, or float32 outputs rounded to tf32 (on a GPU) or bf16 first."""


AS_PUBLISHED = Picking()
"""TAMP's constants."""


@torch.no_grad()
def select_representative(
    outputs: Tensor | Sequence[Tensor],
    attention: Tensor,
    modality: Tensor,
    rule: Picking = AS_PUBLISHED,
    *,
    valid: Tensor | None = None,
) -> Tensor:
    """Choose tokens greedily by attention until they represent the whole sample (AMIA, TAMP section 3.3).

    Every token starts with its attention plus that of its nearest neighbours. The best token is picked, its
    neighbours are lowered, and so on until the squared MMD between the picked tokens and all tokens is below
    `rule.threshold * sqrt(1 - density)`, or all are picked. Density is the mean cosine over the modality pairs
    present: a sample without one of the modalities uses the pairs it has, and one with fewer than two tokens
    keeps them all.

    One n x n matrix per sample and linear, its cosines, serves density, neighbours and kernel; a pick then costs
    O(n). The samples of all linears are picked from at the same time, as many as fit into `ENTRIES_AT_ONCE`.

    Args:
        outputs: linear outputs [n, d] or [B, n, d], any floating dtype; or those of several linears, L of [B, n, d_l].
        attention: received attention, [n] or [B, n]; usually the attention map's last row, mean of heads.
        modality: id per token (0 text, 1 image, 2 video, 3 audio), shaped like attention.
        rule: how tokens are picked.
        valid: False on padding, shaped like attention; padding is never picked and has no influence.

    Returns:
        Bool tensor like attention, True = picked; [L, B, n] for several linears.

    Raises:
        ValueError: the shapes do not agree.
    """
    every = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    several = not isinstance(outputs, Tensor)
    for one in every:
        check_token_shapes(one, modality, valid)
    if attention.shape != modality.shape:
        raise ValueError(f"attention has shape {list(attention.shape)}; expected {list(modality.shape)}.")
    shape = attention.shape
    present = torch.ones_like(modality, dtype=torch.bool) if valid is None else valid
    if present.numel() == 0 or not every:
        return present.expand(len(every), *shape) if several else present
    whole = (-1, shape[-1])
    sample = _Sample(attention.reshape(whole), modality.reshape(whole), present.reshape(whole), valid is not None)
    batched = [one.reshape(-1, *one.shape[-2:]) for one in every]
    limit = rule.max_tokens
    capped = None if limit is None or limit >= shape[-1] else sample.most_attended(limit)
    if capped is None:
        picked = _select_in_parts(batched, sample, rule)
    else:
        few = [one.gather(1, capped[..., None].expand(-1, -1, one.shape[-1])) for one in batched]
        among = _select_in_parts(few, sample.at(capped), rule)
        picked = torch.zeros(len(among), shape[-1], dtype=torch.bool, device=among.device)
        picked.scatter_(1, capped.repeat(len(every), 1), among)
    return picked.view(-1, *shape) if several else picked.view(shape)


def _select_in_parts(outputs: Sequence[Tensor], sample: _Sample, rule: Picking) -> Tensor:
    """`_select`, as many linears at the same time as memory is granted for."""
    size = max(1, ENTRIES_AT_ONCE // (sample.present.numel() * sample.present.shape[-1]))
    return torch.cat([_select(outputs[k : k + size], sample, rule) for k in range(0, len(outputs), size)])


@dataclass(frozen=True)
class _Sample:
    """What is known of the tokens of a batch, whichever the linear: all [B, n]."""

    attention: Tensor
    modality: Tensor
    present: Tensor
    padded: bool

    def times(self, count: int) -> _Sample:
        """The same for `count` linears, [count * B, n]."""
        return self._map(lambda tensor: tensor.repeat(count, 1))

    def most_attended(self, count: int) -> Tensor:
        """Positions of the `count` tokens of most attention, in order, [B, count]; padding only where they run out."""
        attention = self.attention.float().masked_fill(~self.present, -math.inf)
        return attention.topk(count, dim=-1).indices.sort(-1).values

    def at(self, positions: Tensor) -> _Sample:
        """The tokens at some positions [B, m]."""
        return self._map(lambda tensor: tensor.gather(1, positions))

    def _map(self, change: Callable[[Tensor], Tensor]) -> _Sample:
        return _Sample(change(self.attention), change(self.modality), change(self.present), self.padded)


def _select(outputs: Sequence[Tensor], sample: _Sample, rule: Picking) -> Tensor:
    """Tokens picked by the outputs of each linear, bool [L * B, n]."""
    valid = sample.present if sample.padded else None
    gram = torch.cat([cosine_gram(one, valid, rule.precision) for one in outputs])
    sample = sample.times(len(outputs))
    density = mean_over_pairs(gram_cosine(gram, sample.modality, sample.present, rule.positive_only))
    index, cosine = _nearest(gram, sample.present if sample.padded else None, rule.neighbors)
    distance = 1 - cosine
    attention = sample.attention.float().masked_fill(~sample.present, 0)
    kernel = gram.sub_(1).div_(rule.bandwidth**2).exp_()
    kernel.diagonal(dim1=-2, dim2=-1).fill_(1)
    messages = _forward_messages(attention, index, distance, rule.forward_decay)
    order = Order(
        value=messages.masked_fill_(~sample.present, -math.inf),
        index=index,
        share=torch.exp(-rule.reverse_decay * distance).masked_fill_(distance.isinf(), 0),
    )
    limit = rule.threshold * (1 - density).clamp(min=0).sqrt()
    selected = pick_until(order, Mismatch(kernel, sample.present), limit.double(), sample.present.sum(-1))
    return torch.where(density.isnan()[:, None], sample.present, selected & sample.present)


def _nearest(gram: Tensor, present: Tensor | None, neighbors: int) -> tuple[Tensor, Tensor]:
    """Nearest tokens' index and cosine, [B, n, k]; overwrites the Gram's diagonal and padded columns by -inf.

    The token itself is masked out rather than dropped as first hit: a duplicate may come before it.
    """
    gram.diagonal(dim1=-2, dim2=-1).fill_(-math.inf)
    if present is not None:
        gram.masked_fill_(~present[:, None, :], -math.inf)
    cosine, index = gram.topk(min(neighbors, gram.shape[-1] - 1), dim=-1)
    return index, cosine


def _forward_messages(attention: Tensor, index: Tensor, distance: Tensor, decay: float) -> Tensor:
    """a_i + sum over neighbours k of exp(-decay D_ik) a_k, [B, n]; an absent one is infinitely far."""
    weight = torch.exp(-decay * distance).masked_fill_(distance.isinf(), 0)
    received = attention[:, None, :].expand(-1, index.shape[1], -1).gather(2, index)
    return attention + (weight * received).sum(-1)
