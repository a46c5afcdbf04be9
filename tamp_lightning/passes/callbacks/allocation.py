"""The budget of every linear: measured where the method needs data, known at once where it does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from tamp_lightning.distributed.collectives import broadcast
from tamp_lightning.errors import InputError
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.options import Experts
from tamp_lightning.passes.contract import BlockPass, Pass, PassCallback, TokenSource
from tamp_lightning.passes.measuring import InputMeter, Meter, OutputMeter
from tamp_lightning.passes.sensitivity import LossMeter


def _no_scores(pl_module: BlockPass, rule: Any) -> dict[str, float]:
    return {}


def _depths(pl_module: BlockPass, rule: Any) -> dict[str, float]:
    """Number of each linear's block."""
    return {linear.full: float(linear.block) for linear in pl_module.stream.facts.all_linears}


def _weight_scores(pl_module: BlockPass, rule: Any, index: int) -> dict[str, float]:
    """Score of a dense block from its weights, for each of its linears."""
    stream, linears = pl_module.stream, pl_module.stream.facts.linears[index]
    if not linears:
        return {}
    block = stream.load(index, dense=True)
    try:
        score = rule.block_score([linear.weight(block).detach() for linear in linears])
    except InputError as error:
        raise InputError(f"{stream.facts.blocks}.{index}: {error}") from None
    stream.release(index)
    return {linear.full: score for linear in linears}


def _ignore(index: int) -> None:
    """The default of `on_scored`: nothing is noted."""


METERS: dict[str, Callable[[Any, TokenSource, Experts], Meter]] = {
    "outputs": OutputMeter,
    "inputs": InputMeter,
    "loss": LossMeter,
}
AT_ONCE: dict[str, Callable[[BlockPass, Any], dict[str, float]]] = {
    "nothing": _no_scores,
    "depth": _depths,
}


class AllocationCallback(PassCallback):
    """Scores every linear during the measure walk, then shares the budget among them (`BlockPass.plan`).

    Attributes:
        scores: what the budget is shared by, for each linear by full name; empty if the method needs no measuring.
        cosines: [4,4] mean cosine between modalities behind each score, NaN where a pair has no tokens; empty where
            scores rest on something else.
        measured: number of blocks that are scored already.
        on_scored: called with the number of every block that has been scored.
    """

    def __init__(self, method: Method, source: TokenSource) -> None:
        self.method = method
        self.measured = 0
        self.on_scored: Callable[[int], None] = _ignore
        self.scores: dict[str, float] = {}
        self.cosines: dict[str, Tensor] = {}
        rule = method.allocation_rule
        self._meter = METERS[rule.basis](rule, source, method.experts) if rule.basis in METERS else None

    def on_fit_start(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Allocate now if no measure walk is needed."""
        rule, blocks = self.method.allocation_rule, len(pl_module.stream.facts.linears)
        if rule.basis in AT_ONCE:
            self.scores = AT_ONCE[rule.basis](pl_module, rule)
        elif rule.basis == "weights":
            for index in range(self.measured, blocks):  # one block in memory at a time
                self._take(index, _weight_scores(pl_module, rule, index))
        if self._meter is None or self.measured == blocks:
            self._allocate(pl_module)

    def wanted(self, now: Pass) -> bool:
        """Every dense pass, if there is something to measure."""
        return now.is_dense and self._meter is not None

    @torch.no_grad()
    def batch_passed(self, pl_module: BlockPass, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Let the meter look at the batch."""
        assert self._meter is not None
        if pl_module.now.replays:
            self._meter.skip(pl_module, batch, batch_idx)
        else:
            self._meter.look(pl_module, batch, batch_idx)

    def pass_ends(self, pl_module: BlockPass) -> None:
        """Score the block's linears; after the last block, allocate."""
        if not pl_module.now.measures:
            return
        assert self._meter is not None
        scores = self._meter.scores(pl_module)
        self.cosines |= self._meter.cosines
        self._take(pl_module.index, scores)
        if self.measured == len(pl_module.stream.facts.linears):
            self._allocate(pl_module)

    def record(self, names: list[str]) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Scores and cosines of a measured block's linears, for `restore`."""
        cosines = {name: self.cosines[name].contiguous() for name in names if name in self.cosines}
        return {name: self.scores[name] for name in names}, cosines

    def restore(self, scores: dict[str, float], cosines: dict[str, Tensor]) -> None:
        """Take up what an earlier process of the run has measured of the next block."""
        self.scores |= scores
        self.cosines |= cosines
        self.measured += 1

    def _take(self, index: int, scores: dict[str, float]) -> None:
        self.scores |= scores
        self.measured = index + 1
        self.on_scored(index)

    def _allocate(self, pl_module: BlockPass) -> None:
        sizes = {linear.full: math.prod(linear.shape) for linear in pl_module.stream.facts.all_linears}
        rule, sparsity, trial = self.method.allocation_rule, self.method.sparsity, self.method.trial
        plan = rule.kept(sizes, sparsity, self.scores or None)
        widths = trial.values if trial is not None and trial.constant == "width" else ()
        plans = {width: rule.kept_at(width, sizes, sparsity, self.scores) for width in widths}  # type: ignore[attr-defined]
        # processes on other processors could round a score differently
        pl_module.plan, pl_module.plans = broadcast(pl_module.partition, (plan, plans))
