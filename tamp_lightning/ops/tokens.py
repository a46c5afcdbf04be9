"""AMIA: the tokens whose activations stand for all of them (TAMP section 3.3)."""

import math

import torch
from torch import Tensor

from tamp_lightning.ops.diversity import check_token_shapes, mean_over_pairs, unit_cosine, unit_rows

PICKS_PER_CHECK = 16
"""Picks made between two looks at the stopping rule; each look costs one device-to-host sync."""


@torch.no_grad()
def select_representative(
    outputs: Tensor,
    attention: Tensor,
    modality: Tensor,
    *,
    valid: Tensor | None = None,
    neighbors: int = 3,
    forward_decay: float = 1.0,
    reverse_decay: float = 0.2,
    bandwidth: float = 1.0,
    threshold: float = 0.1,
    positive_only: bool = False,
) -> Tensor:
    """Choose tokens greedily by attention until they represent the whole sample (AMIA, TAMP section 3.3).

    Every token starts with its attention plus that of its nearest neighbours. The best token is picked, its
    neighbours are lowered, and so on until the squared MMD between the picked tokens and all tokens is below
    `threshold * sqrt(1 - density)`, or all are picked. Density is the mean cosine over the modality pairs
    present: a sample without one of the modalities uses the pairs it has, and one with fewer than two tokens
    keeps them all.

    Args:
        outputs: linear outputs [n, d] or [B, n, d]; computed in float32. Memory is one [B, n, n] matrix.
        attention: received attention, [n] or [B, n]; usually the attention map's last row, mean of heads.
        modality: id per token (0 text, 1 image, 2 video, 3 audio), shaped like attention.
        valid: False on padding, shaped like attention; padding is never picked and has no influence.
        neighbors: number of nearest tokens, itself excluded, that a token exchanges attention with.
        forward_decay: neighbours add exp(-forward_decay * cosine distance) of their attention.
        reverse_decay: a pick takes exp(-reverse_decay * cosine distance) of its value from its neighbours.
        bandwidth: sigma of the Gaussian kernel exp(-|u_i - u_k|^2 / (2 sigma^2)) on unit tokens.
        threshold: coefficient of the stopping rule; smaller picks more tokens.
        positive_only: density as in the reference code (see `ops.diversity.modality_cosine`).

    Returns:
        Bool tensor like attention, True = picked.

    Raises:
        ValueError: the shapes do not agree.
    """
    check_token_shapes(outputs, modality, valid)
    if attention.shape != modality.shape:
        raise ValueError(f"attention has shape {list(attention.shape)}; expected {list(modality.shape)}.")
    shape = attention.shape
    if outputs.dim() == 2:
        outputs, attention, modality = outputs[None], attention[None], modality[None]
        valid = None if valid is None else valid[None]
    present = torch.ones_like(modality, dtype=torch.bool) if valid is None else valid
    if present.numel() == 0:
        return present.reshape(shape)
    units = unit_rows(outputs, valid)
    gram = units @ units.mT
    density = mean_over_pairs(unit_cosine(units, modality, valid, gram if positive_only else None))
    index, cosine = _nearest(gram, present, neighbors)
    distance = 1 - cosine
    attention = attention.float().masked_fill(~present, 0)
    kernel = gram.sub_(1).div_(bandwidth**2).exp_()
    kernel.diagonal(dim1=-2, dim2=-1).fill_(1)
    order = _Order(
        value=_forward_messages(attention, index, distance, forward_decay).masked_fill_(~present, -math.inf),
        index=index,
        share=torch.exp(-reverse_decay * distance).masked_fill_(distance.isinf(), 0),
    )
    limit = threshold * (1 - density).clamp(min=0).sqrt()
    selected = _pick_until(order, _Mismatch(kernel, present), limit.double(), present.sum(-1))
    return torch.where(density.isnan()[:, None], present, selected & present).reshape(shape)


def _nearest(gram: Tensor, present: Tensor, neighbors: int) -> tuple[Tensor, Tensor]:
    """Nearest tokens' index and cosine, [B, n, k]; overwrites the Gram's diagonal and padded columns by -inf.

    The token itself is masked out rather than dropped as first hit: a duplicate may come before it.
    """
    gram.diagonal(dim1=-2, dim2=-1).fill_(-math.inf)
    gram.masked_fill_(~present[:, None, :], -math.inf)
    cosine, index = gram.topk(min(neighbors, gram.shape[-1] - 1), dim=-1)
    return index, cosine


def _forward_messages(attention: Tensor, index: Tensor, distance: Tensor, decay: float) -> Tensor:
    """a_i + sum over neighbours k of exp(-decay D_ik) a_k, [B, n]; an absent one is infinitely far."""
    weight = torch.exp(-decay * distance).masked_fill_(distance.isinf(), 0)
    received = attention[:, None, :].expand(-1, index.shape[1], -1).gather(2, index)
    return attention + (weight * received).sum(-1)


class _Order:
    """The order in which tokens are picked; it does not depend on when picking stops.

    Arrays are flat over the batch, so that a pick of all samples is a handful of small operations.
    """

    def __init__(self, value: Tensor, index: Tensor, share: Tensor) -> None:
        batch, n = value.shape
        self.value = value
        self.flat = value.view(-1)
        self.offset = torch.arange(batch, device=value.device) * n
        self.neighbors = (index + self.offset[:, None, None]).reshape(batch * n, index.shape[-1])
        self.loss = share.neg().reshape(batch * n, index.shape[-1])

    def next(self, count: int) -> Tensor:
        """Index inside its sample of each of the next `count` picks, [B, count].

        Once a sample has no tokens left its entries mean nothing.
        """
        picks = self.offset.new_empty(count, len(self.offset))
        best = self.value.new_empty(len(self.offset))
        for pick in picks:
            torch.max(self.value, 1, out=(best, pick))
            flat = pick + self.offset
            loss = self.loss.index_select(0, flat).mul_(best.clamp_(min=0)[:, None])
            self.flat.index_add_(0, self.neighbors.index_select(0, flat).view(-1), loss.view(-1))
            self.flat.index_fill_(0, flat, -math.inf)
        return picks.T


class _Mismatch:
    """Squared MMD between the first p picks and all tokens, for growing p, from one kernel matrix.

    With r the column sums of K over the n tokens: MMD^2 = sum(r)/n^2 + sum(K_SS)/p^2 - 2 sum(r_S)/(n p).
    The biased estimate, diagonals included, as in the paper's code.
    """

    def __init__(self, kernel: Tensor, present: Tensor) -> None:
        self.kernel = kernel
        self.size = present.sum(-1, keepdim=True).double()
        self.column = kernel.sum(-1).double()
        self.whole = (self.column * present).sum(-1, keepdim=True) / self.size**2
        self.within = torch.zeros_like(self.whole)
        self.across = torch.zeros_like(self.whole)

    def extend(self, order: Tensor, start: int) -> Tensor:
        """Squared MMD after each of the picks order[:, start:], in float64 [B, new]; order is [B, so far]."""
        new = order[:, start:]
        n = self.kernel.shape[-1]
        pairs = (new[:, :, None] * n + order[:, None, :]).flatten(1)
        block = self.kernel.flatten(1).gather(1, pairs).view(*new.shape, -1).double()
        # each pick adds its own entry, 1, and twice its row against earlier picks
        within = self.within + (1 + 2 * block.tril(start - 1).sum(-1)).cumsum(-1)
        across = self.across + self.column.gather(1, new).cumsum(-1)
        self.within, self.across = within[:, -1:], across[:, -1:]
        picked = torch.arange(start + 1, order.shape[1] + 1, device=order.device)
        return self.whole + within / picked**2 - 2 * across / (self.size * picked)


def _pick_until(order: _Order, mismatch: _Mismatch, limit: Tensor, size: Tensor) -> Tensor:
    """Bool [B, n]: each sample's picks up to and including the first that represents it or uses it up."""
    batch, n = order.value.shape
    picks = order.offset.new_empty(batch, 0)
    length = torch.full_like(size, n)
    while True:
        start = picks.shape[1]
        picks = torch.cat([picks, order.next(min(PICKS_PER_CHECK, n - start))], 1)
        count = torch.arange(start + 1, picks.shape[1] + 1, device=picks.device)
        stop = (mismatch.extend(picks, start) < limit[:, None]) | (count >= size[:, None])
        length = torch.minimum(length, torch.where(stop, count, n).amin(-1))
        if picks.shape[1] == n or bool((length <= picks.shape[1]).all()):
            break
    # picks past the end go to a spare column: they may repeat the index of a real one
    unused = torch.arange(picks.shape[1], device=picks.device) >= length[:, None]
    selected = torch.zeros(batch, n + 1, dtype=torch.bool, device=picks.device)
    return selected.scatter_(1, picks.masked_fill(unused, n), True)[:, :n]
