"""Gradient steps on the output error of one pruned block; zeros stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.methods.options import Polish
from tamp_lightning.passes.contract import BlockPass
from tamp_lightning.stream.cache import CachedBatch

Target = Callable[[int, CachedBatch], Tensor]
"""What the block should make of a batch [B,n,h], by the batch's number and content."""


def polish(
    pl_module: BlockPass, masks: Mapping[Linear, Tensor], target: Target, options: Polish
) -> tuple[float, float]:
    """Lower the current block's mean squared output error by Adam, and keep the result if it is lower.

    Weights are held in float32 between the steps, whatever the block computes in.

    Args:
        pl_module: whose current block is pruned already; its cache holds the batches before it.
        masks: bool [o, c] by linear, True = may move.
        target: the outputs to come close to.
        options: number of steps and learning rate.

    Returns:
        The error per entry of the hidden state before and after; equal if the steps did not help.
    """
    block = pl_module.block
    weights = {linear: linear.weight(block) for linear in masks}
    start = {linear: weight.detach().clone() for linear, weight in weights.items()}
    exact = {linear: weight.to(torch.float32, copy=True).requires_grad_() for linear, weight in start.items()}
    optimizer = torch.optim.Adam(exact.values(), lr=options.lr)
    before = _total_error(pl_module, block, target)
    try:
        for step in range(options.steps):
            total, count = _error(pl_module, block, step % len(pl_module.cache), target, weights)
            (total / count).backward()
            for linear, weight in weights.items():
                assert weight.grad is not None
                exact[linear].grad = weight.grad.float() * masks[linear]
            optimizer.step()
            for linear, weight in weights.items():
                weight.data.copy_(exact[linear].detach())
    finally:
        for weight in weights.values():
            weight.requires_grad_(False).grad = None
    after = _total_error(pl_module, block, target)
    if after < before:
        return before, after
    for linear, weight in weights.items():
        weight.data.copy_(start[linear])
    return before, before


@torch.no_grad()
def _total_error(pl_module: BlockPass, block: nn.Module, target: Target) -> float:
    pairs = [_error(pl_module, block, number, target) for number in range(len(pl_module.cache))]
    return sum(float(total) for total, _ in pairs) / sum(count for _, count in pairs)


def _error(
    pl_module: BlockPass, block: nn.Module, number: int, target: Target, moving: Mapping[Linear, Tensor] | None = None
) -> tuple[Tensor, int]:
    """Summed squared error of a batch on tokens that are not padding, and over how many numbers."""
    batch = pl_module.cache[number].to(pl_module.device)
    with pl_module.seeing(batch):
        return _seen_error(pl_module, block, number, batch, target, moving)


def _seen_error(
    pl_module: BlockPass,
    block: nn.Module,
    number: int,
    batch: CachedBatch,
    target: Target,
    moving: Mapping[Linear, Tensor] | None,
) -> tuple[Tensor, int]:
    with torch.no_grad():
        wanted = target(number, batch)[batch.counted].float()
    # only now: whoever asks the stream for a block gets it without gradients
    for weight in (moving or {}).values():
        weight.requires_grad_(True).grad = None
    with torch.set_grad_enabled(moving is not None):
        off = block(batch.hidden, **batch.kwargs)[batch.counted].float() - wanted
        return off.square().sum(), off.numel()
