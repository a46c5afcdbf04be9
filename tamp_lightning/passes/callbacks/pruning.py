"""Masks at epoch end: the statistics of the passes over a block decide which of its weights go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.distributed.collectives import broadcast_bits
from tamp_lightning.errors import InputError
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.statistics import Statistics, mixed
from tamp_lightning.ops.bits import pack_bits
from tamp_lightning.ops.drift import TEXT
from tamp_lightning.ops.masks import keep_where
from tamp_lightning.passes.callbacks.dense import DenseTwin
from tamp_lightning.passes.callbacks.experts import tell_of_rare_experts
from tamp_lightning.passes.callbacks.mixing import MixChooser, Solved
from tamp_lightning.passes.callbacks.statistics import WHOLE, Snapshot, StatisticsCollector
from tamp_lightning.passes.contract import BlockPass, Pass, PassCallback
from tamp_lightning.passes.reconstruction import Lesson, reconstruct
from tamp_lightning.runs.plan import mask_row


class PruningCallback(PassCallback):
    """Prunes the current block after the last pass over it, and commits it.

    Args:
        method: how weights are chosen.
        statistics: of the block's inputs.
        dense: the dense model beside the pruned one, where weights are corrected towards it.

    Attributes:
        masks: packed bits of every mask by full linear name (`pack_bits`).
        report: per linear, weights kept, weights in all, and the mask's sha256.
        token_share: per linear, share of each modality (text, image, video, audio) among the tokens that counted,
            and how many tokens a sample contributed on average; zero where no token was needed.
        chooser: stands before this callback where a method chooses among several ways of pruning a block.
    """

    def __init__(self, method: Method, statistics: StatisticsCollector, dense: DenseTwin | None = None) -> None:
        self.method, self.statistics, self.dense = method, statistics, dense
        self._snapshots: list[Snapshot] = []
        self.chooser = MixChooser(method.trial, self.solve) if method.trial is not None else None
        self.masks: dict[str, Tensor] = {}
        self.report: dict[str, dict[str, Any]] = {}
        self.token_share: dict[str, list[float]] = {}

    def wanted(self, now: Pass) -> bool:
        """The last pass over a block."""
        return now.prunes

    def pass_ends(self, pl_module: BlockPass) -> None:
        """Put the pruned weights in place, reconstruct the block if wanted, hand the block back."""
        if self.method.mode == "sequential":
            self._prune(pl_module)
            return
        self._snapshots.append(self.statistics.snapshot())
        if len(self._snapshots) == len(pl_module.stream.facts.linears):
            self._prune_all(pl_module)

    def record(self, names: list[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What became of a pruned block's linears as JSON values, and their masks, for `restore`."""
        content = {
            "report": {name: self.report[name] for name in names},
            "token_share": {name: self.token_share[name] for name in names},
        }
        return content, {name: self.masks[name] for name in names}

    def restore(self, content: Mapping[str, Any], masks: Mapping[str, Tensor]) -> None:
        """Take up a block that an earlier process of the run has pruned."""
        self.report |= content["report"]
        self.token_share |= content["token_share"]
        self.masks |= {name: masks[name] for name in content["report"]}

    def on_fit_end(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Say how many experts had few tokens."""
        if pl_module.partition.is_first:
            tell_of_rare_experts(self.report, self.method)

    def _prune_all(self, pl_module: BlockPass) -> None:
        """Prune block after block, now that the last has been passed and the budget is known."""
        for index, snapshot in enumerate(self._snapshots):
            self.statistics.restore(snapshot)
            self._prune(cast(BlockPass, AtBlock(pl_module, index)))
            pl_module.stream.release(index)
        self._snapshots.clear()

    def _prune(self, pl_module: BlockPass) -> None:
        solved = self.chooser.choice().solved if self.chooser else self.solve(pl_module)
        for linear, (_, mask) in solved.items():
            self._report(pl_module, linear, mask)
        self._place(pl_module, solved)
        pl_module.stream.commit(pl_module.index, {linear.name: mask for linear, (_, mask) in solved.items()})
        self.statistics.clear()

    def solve(self, pl_module: BlockPass, value: float | None = None) -> Solved:
        """New weight and mask of every linear of the current block; nothing is changed.

        The first process solves, all get its bits.

        Args:
            pl_module: whose current block is meant.
            value: of what is tried (`Method.trial`), if anything is.
        """
        linears, block = pl_module.stream.facts.linears[pl_module.index], pl_module.block
        if pl_module.partition.is_first:
            solved = {linear: self._solve(pl_module, linear, value) for linear in linears}
        else:
            weights = {linear: linear.weight(block).detach() for linear in linears}
            solved = {n: (torch.empty_like(w), torch.empty_like(w, dtype=torch.bool)) for n, w in weights.items()}
        solved = {linear: (weight.contiguous(), mask.contiguous()) for linear, (weight, mask) in solved.items()}
        broadcast_bits(pl_module.partition, (tensor for pair in solved.values() for tensor in pair))
        return solved

    @torch.no_grad()
    def _solve(self, pl_module: BlockPass, linear: Linear, value: float | None) -> tuple[Tensor, Tensor]:
        full, weight = linear.full, linear.weight(pl_module.block)
        tried = self.method.trial.constant if self.method.trial is not None else None
        kept = pl_module.planned(full, value if tried == "width" else None)
        lam = value if tried == "lambda" and value is not None else 1.0
        try:
            statistics = _joined(self.statistics.of(linear), lam)
            return self.method.solve(weight.detach(), statistics, kept)
        except InputError as error:
            raise InputError(str(error) if full in str(error) else f"{full}: {error}") from None

    def _place(self, pl_module: BlockPass, solved: Solved) -> None:
        block, options = pl_module.block, self.method.reconstruct
        weights = {linear: linear.weight(block) for linear in solved}
        if not (options.on and solved):
            _put(weights, solved)
            return
        scales = pl_module.stream.scales(pl_module.index) if options.norms else []
        names = dict.fromkeys([*(linear.parameter for linear in solved), *scales])
        dense = {name: block.get_parameter(name).detach().clone() for name in names}
        _put(weights, solved)
        if not self._reconstruct(pl_module, solved, dense):
            for name in scales:
                block.get_parameter(name).data.copy_(dense[name])
            _put(weights, solved)

    def _reconstruct(self, pl_module: BlockPass, solved: Solved, dense: dict[str, Tensor]) -> bool:
        """Whether it helped; otherwise the block is to be as the solver left it."""
        options, own = self.method.reconstruct, pl_module.cache
        twin = self.dense.inputs if self.dense is not None else own
        lesson = Lesson(twin if options.inputs == "dense" else own, twin, self.statistics.token_weights)
        masks = {linear: mask for linear, (_, mask) in solved.items()}
        before, after = reconstruct(pl_module, pl_module.block, masks, dense, lesson, options)
        helped = after <= before
        for linear in solved:
            self.report[linear.full]["block_error"] = {"pruned": before, "reconstructed": after if helped else before}
        return helped

    def _report(self, pl_module: BlockPass, linear: Linear, mask: Tensor) -> None:
        full, use = linear.full, self.statistics.use(linear)
        self.report[full] = mask_row(mask, tokens_per_sample=use.per_sample)
        if self.method.token_rule.needs_attention and not pl_module.stream.facts.attends(linear.block):
            self.report[full]["tokens"] = "all"  # the block has no attention to choose by
        if (tokens := self.statistics.expert_tokens(linear)) is not None:
            self.report[full]["expert_tokens"] = tokens
            if self.method.statistics == "hessian" and tokens < linear.shape[1]:
                self.report[full]["fallback"] = self.method.fallback
        if self.chooser is not None:
            self.report[full][self.chooser.trial.constant] = self.chooser.choice().value
        self.masks[full] = pack_bits(mask)
        self.token_share[full] = use.share


@dataclass(frozen=True)
class AtBlock:
    """A module as if block `index` were its current one."""

    module: BlockPass
    index: int

    @property
    def block(self) -> nn.Module:
        """Block `index` with its weights."""
        return self.module.stream.load(self.index)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


def _put(weights: Mapping[Linear, Tensor], solved: Solved) -> None:
    for linear, (weight, mask) in solved.items():
        weights[linear].data.copy_(keep_where(weight, mask))


def _joined(parts: Mapping[int, Statistics], lam: float) -> Statistics:
    if WHOLE in parts:
        return parts[WHOLE]
    return mixed(parts, {modality: 1.0 if modality == TEXT else lam for modality in parts})
