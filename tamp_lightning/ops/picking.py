"""The greedy loop behind AMIA: picks in order of value until those picked represent the sample; O(n) a pick."""

import math

import torch
from torch import Tensor

PICKS_PER_CHECK = 16
"""Picks made between two looks at the stopping rule; each look costs one device-to-host sync."""


class Order:
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


class Mismatch:
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


def pick_until(order: Order, mismatch: Mismatch, limit: Tensor, size: Tensor) -> Tensor:
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
