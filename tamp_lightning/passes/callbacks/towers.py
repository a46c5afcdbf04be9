"""Towers and projector: pruned once, before the decoder's prune walk, by what they read while they are dense."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from tamp_lightning.checkpoint.adapter import adapter_of
from tamp_lightning.checkpoint.facts import media_of
from tamp_lightning.distributed.collectives import all_gather, broadcast_bits, gather_by_id, reduce_to_first
from tamp_lightning.distributed.partition import BatchPartition
from tamp_lightning.distributed.sums import OrderedSum
from tamp_lightning.errors import InputError
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.statistics import Statistics
from tamp_lightning.methods.towers import Towers
from tamp_lightning.ops.bits import pack_bits
from tamp_lightning.ops.hessian import weighted_gram
from tamp_lightning.ops.stats import weighted_square_sum
from tamp_lightning.passes.callbacks.dense import DenseTwin
from tamp_lightning.passes.contract import BlockPass
from tamp_lightning.runs.plan import mask_row
from tamp_lightning.stream.base import Stream


@dataclass
class Read:
    """What one linear has read."""

    tokens: int = 0
    rows: dict[int, Tensor] = field(default_factory=dict)
    """First sample of each batch -> float64 [c], sum of x^2; added up in that order, whatever the batches' was."""


class TowerStatistics:
    """Sums over the tokens that linears of towers and projector read; padding never counts.

    Items of a batch stand in a tower as they like (crops of all pictures, frames, packed patches), so sums are kept
    per batch rather than per sample. A tower that runs twice, on pictures and on videos, counts both times.
    """

    def __init__(self, stream: Stream, method: Method) -> None:
        self.stream, self.method = stream, method
        self.read: dict[str, Read] = {}
        self.samples = 0
        self._leader: dict[str, str] = {}
        self._grams: dict[str, OrderedSum] = {}
        self._last: tuple[Tensor, str] | None = None
        self._leaf = 0

    @contextmanager
    def watch(self, batch: Mapping[str, Tensor], leaf: int) -> Iterator[None]:
        """Add what the linears read inside to the sums; second moments to a leaf of theirs (`distributed.partition`).

        Raises:
            InputError: an input is NaN or infinite, which tokens of it are padding is not known, or it is text.
        """
        model, self._leaf = self.stream.model, leaf
        real = adapter_of(model.config).tower_tokens(model, batch)
        handles = [
            model.get_submodule(linear.name).register_forward_pre_hook(self._hook(linear.name, batch, list(real)))
            for linear in self.stream.facts.towers
        ]
        try:
            yield
        finally:
            self._last = None
            for handle in handles:
                handle.remove()
        self.samples += len(batch["sample_ids"])

    def _hook(
        self, name: str, batch: Mapping[str, Tensor], real: list[Tensor]
    ) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            if not media_of(batch):
                raise InputError(f"{name} runs on samples without media, so it is no tower: use towers.exclude")
            self._add(name, args[0], _real(name, args[0], real), batch["sample_ids"])

        return hook

    def _add(self, name: str, inputs: Tensor, real: Tensor, ids: Tensor) -> None:
        read = self.read.setdefault(name, Read())
        read.tokens += int(real.sum())
        if self.method.statistics == "nothing":
            return
        tokens = inputs.detach().reshape(1, -1, inputs.shape[-1])
        row = weighted_square_sum(tokens, real)[0].cpu()
        if not bool(row.isfinite().all()):
            samples = f"{int(ids[0])} to {int(ids[-1])}"
            raise InputError(
                f"{name} has NaN or infinite inputs in calibration samples {samples}: check the checkpoint"
            )
        first = int(ids[0])
        read.rows[first] = read.rows[first] + row if first in read.rows else row
        if self.method.statistics == "hessian":
            self._add_matrix(name, inputs, tokens, real)

    def _add_matrix(self, name: str, inputs: Tensor, tokens: Tensor, real: Tensor) -> None:
        # q, k and v read one tensor, one right after the other: their matrix is one
        leader = self._last[1] if self._last is not None and self._last[0] is inputs else name
        self._last = (inputs, leader)
        if self._leader.setdefault(name, leader) != leader:
            raise RuntimeError(f"{name} shares its input with {leader} in one call and not in another")
        if name == leader:
            self._grams.setdefault(name, OrderedSum()).add(self._leaf, weighted_gram(tokens, real))

    def put_together(self, partition: BatchPartition) -> None:
        """Sums of all processes: of squares in each, second moments in the first alone.

        Raises:
            InputError: in every process: linears share their input in one batch and not in another.
        """
        if partition.processes == 1:
            return
        tokens = all_gather(partition, {name: read.tokens for name, read in self.read.items()})
        names = [linear.name for linear in self.stream.facts.towers if any(linear.name in own for own in tokens)]
        for name in names:
            rows = self.read[name].rows if name in self.read else {}
            self.read[name] = Read(sum(own.get(name, 0) for own in tokens), gather_by_id(partition, rows))
        self.samples = sum(all_gather(partition, self.samples))
        leaders = all_gather(partition, self._leader)
        self._leader = {name: leader for own in leaders for name, leader in own.items()}
        if any(own[name] != self._leader[name] for own in leaders for name in own):
            raise InputError("linears of towers share their input in some batches only: set devices: 1")
        led = [name for name in names if self._leader.get(name) == name]
        reduce_to_first(partition, [self._grams.setdefault(name, OrderedSum()) for name in led])

    def of(self, name: str) -> Statistics:
        """Statistics of a linear that was reached."""
        read = self.read[name]
        if self.method.statistics == "nothing":
            return Statistics()
        return Statistics(
            sq_norm=torch.stack([read.rows[first] for first in sorted(read.rows)]).sum(0),
            weight_sum=read.tokens,
            hessian=self._total(self._leader.get(name, name)),
            count=read.tokens,
        )

    def _total(self, name: str) -> Tensor | None:
        return self._grams[name].total() if name in self._grams else None


class TowerPruning(L.Callback):
    """Before the prune walk starts: one pass of all samples over the dense towers, then all of them are pruned.

    The measure walk is over by then, so that it saw the dense model; the prune walk embeds its samples with what is
    left. In memory, the pass also makes sure that the decoder can be walked before a weight of a tower changes.

    Args:
        towers: what to prune.
        method: how the decoder is pruned.
        dense: the twin that shall know what the dense towers give, if the method has one.

    Attributes:
        report: per linear that media reached, weights kept, weights in all, the mask's sha256, tokens per sample.
        masks: packed bits of every mask by full linear name (`pack_bits`).
        unreached: linears that no sample reached; they stay dense.
        restored: whether an earlier process of the run has pruned them.
    """

    def __init__(self, towers: Towers, method: Method, dense: DenseTwin | None = None) -> None:
        self.towers, self.method, self.dense = towers, towers.method(method), dense
        self.report: dict[str, dict[str, Any]] = {}
        self.masks: dict[str, Tensor] = {}
        self.unreached: list[str] = []
        self.restored = False

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Collect, prune and commit, before the first pass of the prune walk.

        Raises:
            InputError: no media reach what is to be pruned, or something is not finite.
        """
        if not pl_module.now.starts_pruning or self.restored:
            return
        statistics, partition = TowerStatistics(pl_module.stream, self.method), pl_module.partition
        assert trainer.train_dataloader is not None
        # the batches come first: another process may have more, and then this one repeats its last
        for number, batch in zip(range(len(partition.own)), trainer.train_dataloader, strict=False):
            on_device = trainer.strategy.batch_to_device(batch)
            embedded = pl_module.embed(on_device, statistics.watch(on_device, partition.leaf(partition.own[number])))
            if self.dense is not None:
                self.dense.begin(number, embedded)
        statistics.put_together(partition)
        plan = self._plan(pl_module.stream, statistics)
        masks = {name: self._prune(pl_module, statistics, name, plan[name]) for name in plan}
        pl_module.stream.commit_towers(masks)

    def record(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What became of the linears as JSON values, and their masks, for `restore`."""
        return {"report": self.report, "unreached": self.unreached}, self.masks

    def restore(self, content: Mapping[str, Any], masks: Mapping[str, Tensor]) -> None:
        """Take up what an earlier process of the run has pruned."""
        self.report, self.unreached = content["report"], content["unreached"]
        self.masks = {name: masks[name] for name in self.report}
        self.restored = True

    def _plan(self, stream: Stream, statistics: TowerStatistics) -> dict[str, int]:
        """Weights that each linear keeps, for those that media reached."""
        linears = {linear.full: linear for linear in stream.facts.towers}
        wanted = list(linears)
        reached = [name for name in wanted if name in statistics.read]
        self.unreached = [name for name in wanted if name not in statistics.read]
        for pattern in self.towers.include or [""]:
            if not any(re.search(pattern, name) for name in reached):
                missed = next(name for name in self.unreached if re.search(pattern, name))
                what = f"towers.include '{pattern}'" if pattern else "towers.sparsity"
                raise InputError(
                    f"{what} asks for linears that no calibration sample reaches, such as {missed}: calibrate with "
                    "samples whose media go through it, or leave it dense"
                )
        sizes = {name: math.prod(linears[name].shape) for name in reached}
        return self.method.allocation_rule.kept(sizes, self.method.sparsity)

    @torch.no_grad()
    def _prune(self, pl_module: BlockPass, statistics: TowerStatistics, name: str, kept: int) -> Tensor:
        weight = pl_module.stream.model.get_parameter(f"{name}.weight").data
        if not bool(weight.isfinite().all()):
            raise InputError(f"{name}.weight holds NaN or infinite weights: the checkpoint is damaged")
        pruned, mask = torch.empty_like(weight), torch.empty_like(weight, dtype=torch.bool)
        if pl_module.partition.is_first:
            try:
                pruned, mask = self.method.solve(weight, statistics.of(name), kept)
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
        pruned, mask = pruned.contiguous(), mask.contiguous()
        broadcast_bits(pl_module.partition, (pruned, mask))
        weight.copy_(pruned).masked_fill_(~mask, 0)
        self.masks[name] = pack_bits(mask)
        self.report[name] = mask_row(mask, tokens_per_sample=statistics.read[name].tokens / statistics.samples)
        return mask


def _real(name: str, inputs: Tensor, masks: list[Tensor]) -> Tensor:
    """Which tokens [1,t] of a linear's inputs [...,c] are no padding."""
    shape = inputs.shape[:-1]
    if not masks:
        return torch.ones(1, shape.numel(), dtype=torch.bool, device=inputs.device)
    for mask in masks:
        if mask.shape == shape:
            return mask.reshape(1, -1).to(inputs.device)
    known = ", ".join(str(tuple(mask.shape)) for mask in masks)
    raise InputError(f"{name} reads {tuple(shape)} tokens where {known} are known: use towers.exclude")
