"""Gradient steps on what a pruned block puts out, attention first and then the MLP; zeros stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.methods.options import Reconstruct
from tamp_lightning.passes.contract import BlockPass
from tamp_lightning.stream.cache import CachedBatch

HELD_OUT = 8
"""Every so many batches one is kept from training, to choose the best state by."""
WARM_UP = 0.1
"""Share of the steps in which the rate rises."""
BETAS = (0.9, 0.95)

Weights = dict[Linear, Tensor]
Target = Callable[[int, CachedBatch, nn.Module | None], Tensor]
"""What a part should put out [B,n,h], by the batch's number and content, and where (see `Part.cut`)."""


@dataclass(frozen=True)
class Part:
    """Linears of a block that are trained together."""

    linears: tuple[Linear, ...]
    cut: nn.Module | None
    """Compared is what this child of the block reads; None: what the block returns."""


def parts_of(block: nn.Module, linears: Sequence[Linear], called: Sequence[str]) -> list[Part]:
    """Attention and MLP with what stands between them, where a block has one after the other; else the whole block.

    The child that is called right before the next one with linears is the norm that the MLP reads: what it reads is
    attention's output with the residual added (before that, where norms stand after attention, as in OLMo 2). An MLP
    may be several children (OPT's fc1 and fc2); between those a block is never cut.

    Args:
        block: the decoder block.
        linears: what is pruned in it.
        called: names of the block's children in the order in which they run.
    """
    homes = {linear: linear.name.split(".")[0] for linear in linears}
    places = sorted(map(called.index, set(homes.values()) & set(called)))
    mlp = next((after for before, after in pairwise(places) if after - before > 1), 0)
    first = tuple(linear for linear, home in homes.items() if home in called[:mlp])
    rest = tuple(linear for linear, home in homes.items() if home in called[mlp:])
    if not first or len(first) + len(rest) != len(linears) or any(linear.name in called for linear in first):
        return [Part(tuple(linears), None)]
    return [Part(first, block.get_submodule(called[mlp - 1])), Part(rest, None)]


def reach(block: nn.Module, batch: CachedBatch, cut: nn.Module | None) -> Tensor:
    """What a block makes of a batch [B,n,h], or what its child `cut` reads; nothing after that is computed."""
    if cut is None:
        return block(batch.hidden, **batch.kwargs)

    def stop(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        raise _ReachedError(given[0])

    handle = cut.register_forward_pre_hook(stop)
    try:
        block(batch.hidden, **batch.kwargs)
    except _ReachedError as reached:
        return reached.hidden.view_as(batch.hidden)  # OPT's norms read tokens in one row
    finally:
        handle.remove()
    raise RuntimeError("the block did not call the child at which it is cut")


def reconstruct(
    pl_module: BlockPass, masks: Mapping[Linear, Tensor], target: Target, options: Reconstruct, *, whole: bool = False
) -> tuple[float, float]:
    """Lower the current block's mean squared output error, part by part, and keep the best state of each.

    AdamW with a rate that rises and then falls linearly, on float32 copies of the weights whatever the block computes
    in; a step is one batch, those held out never among them. The state that is kept, the first included, has the
    smallest error on the batches held out (arXiv 2510.14444, 2406.15524). That is the part's own error: where the MLP
    cannot make use of what attention gained, the block's may be larger than before.

    Args:
        pl_module: whose current block is pruned already; its cache holds the batches before it.
        masks: bool [o, c] by linear, True = may move.
        target: the outputs to come close to.
        options: number of steps, learning rate, and how tokens are weighed.
        whole: train all linears at once, on the block's output.

    Returns:
        The block's error per entry of the hidden state on the batches held out, before and after.
    """
    learn, judge = _split(len(pl_module.cache))
    errors = _Errors(pl_module, pl_module.block, target, options, judge)
    called = [] if whole or not options.halves else _called(pl_module, errors.block)
    parts = parts_of(errors.block, list(masks), called)
    before = start = errors.held_out(None)
    if len(parts) > 1 and (start := errors.held_out(parts[0].cut)) == 0:
        parts, start = (
            [Part(tuple(masks), None)],
            before,
        )  # an MLP beside attention reads what attention does not change
    after = start
    for number, part in enumerate(parts):
        least = start if number == 0 else errors.held_out(part.cut)
        after = _train(errors, part, {linear: masks[linear] for linear in part.linears}, learn, least)
    return before, after


def _train(errors: _Errors, part: Part, masks: Mapping[Linear, Tensor], learn: Sequence[int], start: float) -> float:
    """Train a part, put its best state in place, and give the error of that on the batches held out.

    Args:
        errors: of the block.
        part: whose linears move, those of `masks`.
        masks: bool [o, c] by linear, True = may move.
        learn: numbers of the batches to learn from.
        start: the part's error on the batches held out.
    """
    steps, weights = errors.options.steps, {linear: linear.weight(errors.block) for linear in masks}
    exact = {linear: weight.detach().to(torch.float32, copy=True) for linear, weight in weights.items()}
    moved = [value.requires_grad_() for value in exact.values()]
    optimizer = torch.optim.AdamW(moved, errors.options.lr, BETAS, weight_decay=0.0)  # decay would shrink what is kept
    schedule = get_linear_schedule_with_warmup(optimizer, round(WARM_UP * steps), steps)
    least, best = start, _copied(weights)
    try:
        for step in range(steps if start > 0 else 0):
            loss = errors.of(learn[step % len(learn)], part.cut, weights) / start
            loss.backward()
            for linear, weight in weights.items():
                assert weight.grad is not None
                exact[linear].grad = weight.grad.float() * masks[linear]
            optimizer.step()
            schedule.step()
            for linear, weight in weights.items():
                weight.data.copy_(exact[linear].detach() * masks[linear])
            if (step + 1) % len(learn) == 0 or step + 1 == steps:
                found = errors.held_out(part.cut)
                if found < least:
                    least, best = found, _copied(weights)
    finally:
        for linear, weight in weights.items():
            weight.requires_grad_(False).grad = None
            weight.data.copy_(best[linear])
    return least


def _copied(weights: Mapping[Linear, Tensor]) -> Weights:
    return {linear: weight.detach().clone() for linear, weight in weights.items()}


def _split(count: int) -> tuple[list[int], list[int]]:
    """Numbers of the batches to learn from and of those held out; a single batch is both."""
    judge = [n for n in range(count) if n % HELD_OUT == HELD_OUT - 1] or [count - 1]
    return [n for n in range(count) if n not in judge] or judge, judge


@torch.no_grad()
def _called(pl_module: BlockPass, block: nn.Module) -> list[str]:
    """Names of the block's children in the order in which they first run on a batch."""
    found: dict[str, None] = {}
    children = {child: name for name, child in block.named_children()}
    handles = [c.register_forward_pre_hook(lambda m, _: found.setdefault(children[m])) for c in children]
    try:
        with _seen(pl_module, 0) as batch:
            block(batch.hidden, **batch.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return list(found)


@dataclass(frozen=True)
class _Errors:
    """How far a block is from its target."""

    pl_module: BlockPass
    block: nn.Module
    target: Target
    options: Reconstruct
    judge: Sequence[int]
    """Numbers of the batches held out."""

    @torch.no_grad()
    def held_out(self, cut: nn.Module | None) -> float:
        """Mean error of the batches held out, where the block is cut."""
        return float(torch.stack([self.of(number, cut) for number in self.judge]).mean())

    def of(self, number: int, cut: nn.Module | None, moving: Weights | None = None) -> Tensor:
        """Weighted mean squared error of a batch per entry of the hidden state, padding left out."""
        with _seen(self.pl_module, number) as batch:
            with torch.no_grad():
                wanted = self.target(number, batch, cut)[batch.counted].float()
            # only now: whoever asks the stream for a block gets it without gradients
            for weight in (moving or {}).values():
                weight.requires_grad_(True).grad = None
            off = reach(self.block, batch, cut)[batch.counted].float() - wanted
            shares = token_shares(batch.modality[batch.counted], self.options.weigh)
            return (off.square().mean(1) * shares).sum()


def token_shares(modality: Tensor, weigh: str) -> Tensor:
    """Weight of each token in the error, float32 [n], summing to 1: the same for all, or for each modality in all.

    Args:
        modality: int64 [n].
        weigh: tokens or modalities.
    """
    if weigh == "tokens":
        return torch.full(modality.shape, 1 / max(len(modality), 1), device=modality.device)
    _, kind, count = modality.unique(return_inverse=True, return_counts=True)
    return 1 / (len(count) * count[kind].float())


@contextmanager
def _seen(pl_module: BlockPass, number: int) -> Iterator[CachedBatch]:
    batch = pl_module.cache[number].to(pl_module.device)
    with pl_module.seeing(batch):
        yield batch


class _ReachedError(Exception):
    """Ends a block's forward pass where it is cut."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden
