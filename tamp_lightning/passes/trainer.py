"""Lightning Trainers for the two kinds of work, and the fit that prunes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor

from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.distributed.processes import EndTogether, check_processes, check_strategy
from tamp_lightning.errors import InputError
from tamp_lightning.methods.method import Method
from tamp_lightning.passes.callbacks.allocation import AllocationCallback
from tamp_lightning.passes.callbacks.attention import AttentionCollector
from tamp_lightning.passes.callbacks.chosen import Chosen, ChosenTokens
from tamp_lightning.passes.callbacks.dense import DenseTwin
from tamp_lightning.passes.callbacks.drift import DriftCollector
from tamp_lightning.passes.callbacks.keeping import StateKeeper
from tamp_lightning.passes.callbacks.progress import PhaseTimer, block_progress, score_progress
from tamp_lightning.passes.callbacks.pruning import PruningCallback
from tamp_lightning.passes.callbacks.riding import Riders
from tamp_lightning.passes.callbacks.statistics import StatisticsCollector
from tamp_lightning.passes.callbacks.tokens import TokenCollector
from tamp_lightning.passes.callbacks.towers import TowerPruning
from tamp_lightning.passes.module import TampModule
from tamp_lightning.runs.state import RunState
from tamp_lightning.stream.base import Stream
from tamp_lightning.stream.cache import CacheSpace
from tamp_lightning.stream.disk import DiskStream

QUIET: dict[str, Any] = {
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
}
# processes take whole batches, so that each batch is what it is in one process
OWN_SHARES: dict[str, Any] = {"use_distributed_sampler": False}


def walking_trainer(ours: list[L.Callback], **kwargs: Any) -> L.Trainer:
    """Trainer whose epochs are passes over blocks; the module says when to stop.

    Raises:
        InputError: an argument that the walk fixes was given, or a strategy that cannot be used.
    """
    fixed = {
        "max_epochs": -1,
        "reload_dataloaders_every_n_epochs": 1,
        "limit_val_batches": 0,
        "inference_mode": False,
        **OWN_SHARES,
    }
    if taken := sorted(fixed.keys() & kwargs):
        raise InputError(f"trainer.{taken[0]} is fixed to {fixed[taken[0]]} by the walk over the blocks: leave it out")
    given = kwargs.pop("callbacks", None) or []
    theirs = [given] if isinstance(given, L.Callback) else list(given)
    trainer = L.Trainer(**{**QUIET, **kwargs, **fixed, "callbacks": [EndTogether(), *ours, *theirs]})
    check_strategy(trainer)
    return trainer


def scoring_trainer(name: str = "score", **kwargs: Any) -> L.Trainer:
    """Trainer for `trainer.validate`, with a progress bar called `name` unless the arguments turn bars off.

    It has no logger: what is logged of scores goes where the walks are logged to.

    Raises:
        InputError: a strategy that cannot be used.
    """
    bars = [score_progress(name)] if kwargs.get("enable_progress_bar", True) else []
    given = kwargs.pop("callbacks", bars) or []
    chosen = [given] if isinstance(given, L.Callback) else list(given)
    trainer = L.Trainer(**{**QUIET, **kwargs, **OWN_SHARES, "callbacks": [EndTogether(), *chosen], "logger": False})
    check_strategy(trainer)
    return trainer


@dataclass(frozen=True)
class Pruned:
    """What the walks over the blocks found out and decided."""

    scores: dict[str, float]
    """Diversity of each linear, if it was measured (what other rules measured stands in `linears`)."""
    cosines: dict[str, Tensor]
    """[4,4] mean cosines between modalities behind each score."""
    linears: dict[str, dict[str, Any]]
    """Per linear: weights kept, size, shape, sha256 of the mask, tokens that counted per sample."""
    token_share: dict[str, list[float]]
    """Per linear: share of text, image, video and audio among the tokens that counted."""
    masks: dict[str, Tensor]
    """Per linear: mask bits, eight to a byte, row order."""
    seconds: dict[str, float]
    """Wall-clock seconds of the measure and prune walks."""
    files: dict[str, str]
    """sha256 of every file the stream wrote."""
    towers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Per linear of towers and projector, as `linears`; empty where they stay dense."""
    unreached: list[str] = field(default_factory=list)
    """Linears of towers that were to be pruned, but that no calibration sample reached: they stay dense."""
    chosen: Chosen = field(default_factory=Chosen)
    """Tokens that counted in a few samples, and how many there were."""
    loggers: list[Logger] = field(default_factory=list)
    """Where the walks were logged to."""

    @property
    def sparsity(self) -> float:
        """Share of the decoder blocks' prunable weights whose mask bit is off."""
        return _off(self.linears)

    @property
    def towers_sparsity(self) -> float | None:
        """Share of the weights of `towers` whose mask bit is off; None where they stay dense."""
        return _off(self.towers) if self.towers else None


def _off(report: dict[str, dict[str, Any]]) -> float:
    return 1 - sum(v["kept"] for v in report.values()) / sum(v["size"] for v in report.values())


def prune_stream(
    stream: Stream,
    data: CalibrationData,
    method: Method,
    *,
    state: RunState | None = None,
    space: CacheSpace | None = None,
    progress: bool = True,
    riders: Riders | None = None,
    **trainer: Any,
) -> Pruned:
    """Prune every block of a stream with `trainer.fit`; `riders` are taken through the blocks as well.

    Args:
        stream: owner of the weights.
        data: calibration samples.
        method: what to do.
        state: of a run that can be continued, where finished blocks are noted; for a stream over a checkpoint.
        space: where hidden states wait between two blocks; by default in RAM.
        progress: show a progress bar.
        **trainer: further arguments of `lightning.Trainer`.

    Raises:
        InputError: bad weights, activations or budget; the message names the place.
        RuntimeError: what was pruned is not what was planned.
    """
    progress = trainer.pop("enable_progress_bar", progress)
    check_pattern(stream, method)
    timer = PhaseTimer()
    callbacks, allocation, pruning = _callbacks(method, space)
    watcher = ChosenTokens(pruning.statistics)
    callbacks.insert(callbacks.index(pruning.statistics) + 1, watcher)
    dense = next((callback for callback in callbacks if isinstance(callback, DenseTwin)), None)
    towers = [TowerPruning(stream.towers, method, dense)] if stream.facts.towers else []
    callbacks = [timer, *towers, *callbacks, *([riders] if riders else [])]
    pruned = 0
    if isinstance(stream, DiskStream) and method.allocation_rule.basis != "loss" and riders is None:
        stream.drop_head()
    if state is not None and isinstance(stream, DiskStream):
        callbacks.append(keeper := StateKeeper(state, allocation, pruning, timer, watcher, *towers))
        pruned = keeper.restore(stream)
    if progress:
        callbacks.append(block_progress())
    module = TampModule(stream, method, allocation.measured, pruned, space)
    fit = walking_trainer(callbacks, enable_progress_bar=progress, **trainer)
    check_processes(fit, method, data.batches, stream.towers)
    if module.passes:
        with torch.random.fork_rng():
            fit.fit(module, datamodule=data)
    if fit.interrupted or len(pruning.report) != len(stream.facts.all_linears):
        raise RuntimeError("pruning was interrupted: the output is incomplete")
    _check_plan(module.plan or {}, pruning.report)
    for name in allocation.scores.keys() - allocation.cosines.keys():
        pruning.report[name]["score"] = allocation.scores[name]
    for done in towers:
        pruning.masks |= done.masks
    return Pruned(
        {name: allocation.scores[name] for name in allocation.cosines},
        allocation.cosines,
        pruning.report,
        pruning.token_share,
        pruning.masks,
        timer.seconds,
        stream.finish(),
        {name: row for done in towers for name, row in done.report.items()},
        [name for done in towers for name in done.unreached],
        watcher.chosen,
        fit.loggers,
    )


def _callbacks(
    method: Method, space: CacheSpace | None
) -> tuple[list[L.Callback], AllocationCallback, PruningCallback]:
    """Those that a method needs, in the order in which they have to be called."""
    collector = TokenCollector(outputs_read=method.reads_outputs)
    attention = AttentionCollector() if method.token_rule.needs_attention else None
    drift = DriftCollector() if "drift" in method.prune_stages else None
    dense = DenseTwin(collector, method.polish.on, space) if method.correction.on else None
    allocation = AllocationCallback(method, collector)
    statistics = StatisticsCollector(method, collector, attention, drift, dense)
    pruning = PruningCallback(method, statistics)
    wanted = [collector, attention, drift, dense, allocation, statistics, pruning.chooser, pruning]
    return [callback for callback in wanted if callback is not None], allocation, pruning


def linear_shapes(stream: Stream) -> dict[str, tuple[int, int]]:
    """Shape of every prunable weight, by the linear's full name; known before a weight is read."""
    return {linear.full: linear.shape for linear in stream.facts.all_linears}


def check_pattern(stream: Stream, method: Method) -> None:
    """Refuse a pattern or mode that does not fit the sparsity or a linear's shape, of towers too if they are pruned.

    Raises:
        InputError: naming the linear.
    """
    method.check(linear_shapes(stream))
    if stream.facts.towers:
        towers = stream.towers.method(method)
        towers.pattern_rule.check(towers.sparsity, {linear.full: linear.shape for linear in stream.facts.towers})


def _check_plan(plan: dict[str, int], report: dict[str, dict[str, Any]]) -> None:
    wrong = [n for n, kept in plan.items() if n not in report or report[n]["kept"] != kept]
    if wrong:
        raise RuntimeError(f"{len(wrong)} linears are not pruned as planned, such as {wrong[0]}")
