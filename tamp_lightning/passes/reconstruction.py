"""Gradient steps on what a pruned block puts out, attention first and then the MLP; zeros stay where they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.distributed.collectives import all_gather, broadcast, mean_over
from tamp_lightning.distributed.partition import BatchPartition
from tamp_lightning.methods.options import Reconstruct
from tamp_lightning.passes.contract import BlockPass
from tamp_lightning.passes.reconstruction_parts import (
    Part,
    called_children,
    holding,
    masks_of,
    parts_of,
    reach,
    training,
)
from tamp_lightning.stream.cache import ActivationCache, CachedBatch

HELD_OUT = 8
"""Every so many batches one is kept from training, to choose the best state by."""
WARM_UP = 0.1
"""Share of the steps in which the rate rises."""
BETAS = (0.9, 0.95)

Values = dict[str, Tensor]
"""Name of a parameter, relative to its block -> its value."""


@dataclass(frozen=True)
class Lesson:
    """What a block is trained on; batches have the numbers that they have in this process."""

    inputs: ActivationCache
    """What the block reads."""
    dense_inputs: ActivationCache
    """What its dense copy reads, which says what to put out."""
    weights: Mapping[int, Tensor] = field(default_factory=dict)
    """Weight of each token [B,n] where a rule weighs them."""


def reconstruct(
    pl_module: BlockPass,
    block: nn.Module,
    masks: Mapping[Linear, Tensor],
    dense: Values,
    lesson: Lesson,
    options: Reconstruct,
) -> tuple[float, float]:
    """Lower a block's mean squared output error, part by part, and keep the best state of each.

    AdamW with a rate that rises and then falls linearly, on float32 copies of the weights whatever the block computes
    in; a step is one batch of each process, those held out never among them, and the mean of their gradients. The state
    that is kept, the first included, has the smallest error on the batches held out (arXiv 2510.14444, 2406.15524).
    That is the part's own error: where the MLP cannot make use of what attention gained, the block's may be larger than
    before.

    Args:
        pl_module: of whose batches these are.
        block: pruned already.
        masks: bool [o, c] by linear, True = may move.
        dense: what parameters of `masks`, and others that are to be trained, are in the dense block.
        lesson: the batches.
        options: number of steps, learning rate, and how tokens are weighed.

    Returns:
        The block's error per entry of the hidden state on the batches held out, before and after.
    """
    errors = _Errors(pl_module, block, dense, lesson, options.weigh)
    own = masks_of(block, masks)
    scales = [name for name in dense if name not in own]
    parts = parts_of(block, list(masks), errors.called() if options.halves else [], scales)
    if len(parts) > 1 and not errors.depend_on(parts[0]):
        # an MLP beside attention reads what attention does not change
        parts = parts_of(block, list(masks), [], scales)
    before = after = errors.held_out(None)
    for part in parts:
        start = before if len(parts) == 1 else errors.held_out(part.cut)
        names = [*dict.fromkeys(linear.parameter for linear in part.linears), *part.scales]
        after = _train(errors, part.cut, {name: own.get(name) for name in names}, options, start)
    return before, after


def _train(
    errors: _Errors, cut: nn.Module | None, masks: Mapping[str, Tensor | None], options: Reconstruct, start: float
) -> float:
    """Train a part, put its best state in place, and give the error of that on the batches held out.

    Args:
        errors: of the block.
        cut: where they are taken.
        masks: by name of the parameter, bool of its shape, True = may move; None: all of it.
        options: number of steps and learning rate.
        start: the part's error on the batches held out.
    """
    steps, plan = options.steps if start > 0 else 0, errors.plan
    moving = {name: errors.block.get_parameter(name) for name in masks}
    exact = {name: value.detach().to(torch.float32, copy=True).requires_grad_() for name, value in moving.items()}
    # decay would shrink what is kept
    optimizer = torch.optim.AdamW(list(exact.values()), options.lr, BETAS, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, options.steps))
    least, best = start, _copied(moving)
    with training(moving.values()):
        for step in range(steps):
            if plan.own:
                loss = errors.of(plan.own[step % len(plan.own)], cut) / start
                if loss.requires_grad:  # not of a batch that passes other experts alone
                    loss.backward()
            for name, value in moving.items():
                exact[name].grad = gradient = _gradient(value, masks[name])
                mean_over(errors.partition, [gradient], plan.learners)
                value.grad = None
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            for name, value in moving.items():
                _put(value, exact[name].detach(), masks[name])
            if (step + 1) % plan.round == 0 or step + 1 == steps:
                found = errors.held_out(cut)
                if found < least:
                    least, best = found, _copied(moving)
    for name, value in moving.items():
        value.data.copy_(best[name])
    return least


def rate(step: int, steps: int) -> float:
    """Share of the highest learning rate: up linearly over the first tenth of the steps, then down; never 0."""
    warm = max(round(WARM_UP * steps), 1)
    return (step + 1) / warm if step < warm else (steps - step) / (steps - warm + 1)


def _gradient(value: nn.Parameter, mask: Tensor | None) -> Tensor:
    """In float32; zero where no token came by, as with experts, or where this process has no batch."""
    if value.grad is None:
        return torch.zeros_like(value, dtype=torch.float32)
    return value.grad.float() if mask is None else value.grad.float() * mask


def _put(parameter: nn.Parameter, value: Tensor, mask: Tensor | None) -> None:
    value = value.to(parameter.dtype)
    parameter.data.copy_(value if mask is None else torch.where(mask, value, parameter.data))


def _copied(values: Mapping[str, Tensor]) -> Values:
    return {name: value.detach().clone() for name, value in values.items()}


@dataclass(frozen=True)
class _Plan:
    """Who learns from which batches; numbers are those of all processes."""

    own: Sequence[int]
    """This process learns from; it may have none."""
    judge: Sequence[int]
    """This process's among those that choose the best state."""
    learners: int
    """How many processes have batches to learn from."""
    round: int
    """Steps in which every process has seen each of its batches."""

    @classmethod
    def of(cls, partition: BatchPartition) -> _Plan:
        """Hold out every eighth batch, of fewer the last one; a single batch is both."""
        judge = [n for n in range(partition.batches) if n % HELD_OUT == HELD_OUT - 1] or [partition.batches - 1]
        learn = set(range(partition.batches)) - set(judge) or set(judge)
        shares = [[n for n in partition.of(rank) if n in learn] for rank in range(partition.processes)]
        own = [n for n in judge if n in partition.own]
        return cls(shares[partition.rank], own, sum(map(bool, shares)), max(map(len, shares)))


class _Errors:
    """How far a block is from its dense copy.

    Args:
        pl_module: of whose batches these are.
        block: as it is now.
        dense: values of its parameters in the copy.
        lesson: the batches.
        weigh: how tokens are weighed.
    """

    def __init__(self, pl_module: BlockPass, block: nn.Module, dense: Values, lesson: Lesson, weigh: str) -> None:
        self.pl_module, self.block, self.dense, self.lesson, self.weigh = pl_module, block, dense, lesson, weigh
        self.partition = pl_module.partition
        self.plan = _Plan.of(self.partition)

    @torch.no_grad()
    def held_out(self, cut: nn.Module | None) -> float:
        """Mean error of the batches held out by all processes, where the block is cut; the same in each."""
        own = [self.of(number, cut) for number in self.plan.judge]
        found = all_gather(self.partition, torch.stack(own).tolist() if own else [])
        return float(torch.tensor([error for other in found for error in other]).mean())

    def of(self, number: int, cut: nn.Module | None) -> Tensor:
        """Weighted mean squared error of a batch per entry of the hidden state, padding left out."""
        place, lesson = number - self.partition.own[0], self.lesson
        with self._seen(lesson.inputs, place) as batch:
            same = lesson.dense_inputs is lesson.inputs
            other = batch if same else lesson.dense_inputs[place].to(self.pl_module.device)
            with torch.no_grad(), holding(self.block, self.dense):
                wanted = reach(self.block, other, cut)[batch.counted].float()
            off = reach(self.block, batch, cut)[batch.counted].float() - wanted
            chosen = lesson.weights.get(place)
            own = None if chosen is None else chosen[batch.counted]
            shares = token_shares(batch.modality[batch.counted], self.weigh, own)
            return (off.square().mean(1) * shares).sum()

    def called(self) -> list[str]:
        """Names of the block's children in the order in which they run in the first batch."""
        with self._seen(self.lesson.inputs, 0) as batch:
            return broadcast(self.partition, called_children(self.block, batch))

    def depend_on(self, part: Part) -> bool:
        """Whether what is compared is made with the part's linears."""
        weights = {linear.parameter: self.block.get_parameter(linear.parameter) for linear in part.linears}
        with training(weights.values()), self._seen(self.lesson.inputs, 0) as batch:
            return any(all_gather(self.partition, reach(self.block, batch, part.cut).requires_grad))

    @contextmanager
    def _seen(self, cache: ActivationCache, place: int) -> Iterator[CachedBatch]:
        batch = cache[place].to(self.pl_module.device)
        with self.pl_module.seeing(batch):
            yield batch


def token_shares(modality: Tensor, weigh: str, chosen: Tensor | None = None) -> Tensor:
    """Weight of each token in the error, float32 [n], summing to 1: the same for all, or for each modality in all.

    Args:
        modality: int64 [n].
        weigh: tokens, modalities, or rule.
        chosen: weight of each token by the rule [n]; all zero: nothing counts. None: all tokens count the same.
    """
    if weigh == "modalities":
        _, kind, count = modality.unique(return_inverse=True, return_counts=True)
        return 1 / (len(count) * count[kind].float())
    if weigh == "rule" and chosen is not None:
        return chosen.float() / chosen.float().sum().clamp(min=torch.finfo(torch.float32).tiny)
    return torch.full(modality.shape, 1 / max(len(modality), 1), device=modality.device)
