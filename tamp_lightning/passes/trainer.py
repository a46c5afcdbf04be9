"""Lightning Trainers for the two kinds of work, and the fit that prunes."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger

from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.distributed.processes import EndTogether, check_processes, check_strategy
from tamp_lightning.errors import InputError
from tamp_lightning.methods.method import Method
from tamp_lightning.passes.assembly import Assembly
from tamp_lightning.passes.callbacks.experts import check_experts
from tamp_lightning.passes.callbacks.layerwise import LayerwiseCallback
from tamp_lightning.passes.callbacks.progress import score_progress
from tamp_lightning.passes.module import TampModule
from tamp_lightning.passes.pruned import Pruned
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


def prune_stream(
    stream: Stream,
    data: CalibrationData,
    method: Method,
    *,
    state: RunState | None = None,
    space: CacheSpace | None = None,
    progress: bool = True,
    layerwise: LayerwiseCallback | None = None,
    **trainer: Any,
) -> Pruned:
    """Prune every block of a stream with `trainer.fit`; samples of `layerwise` pass them as well.

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
    parts = Assembly.build(stream, method, space, layerwise, state, progress)
    if isinstance(stream, DiskStream) and method.allocation_rule.basis != "loss" and layerwise is None:
        stream.drop_head()
    pruned = parts.resume.restore(stream) if parts.resume and isinstance(stream, DiskStream) else 0
    module = TampModule(stream, method, parts.allocation.measured, pruned, space)
    fit = walking_trainer(parts.in_order, enable_progress_bar=progress, **trainer)
    check_processes(fit, method, data.batches)
    if module.passes or fit.world_size > 1:  # what is left is known once the processes have met
        with torch.random.fork_rng():
            fit.fit(module, datamodule=data)
    if fit.interrupted or len(parts.pruning.report) != len(stream.facts.all_linears):
        raise RuntimeError("pruning was interrupted: the output is incomplete")
    report = parts.pruning.report
    _check_plan({n: module.planned(n, report.get(n, {}).get("width")) for n in module.plan or {}}, report)
    return _outcome(parts, stream.finish(), fit.loggers)


def _outcome(parts: Assembly, files: dict[str, str], loggers: list[Logger]) -> Pruned:
    allocation, pruning, towers = parts.allocation, parts.pruning, parts.towers
    for name in allocation.scores.keys() - allocation.cosines.keys():
        pruning.report[name]["score"] = allocation.scores[name]
    return Pruned(
        scores={name: allocation.scores[name] for name in allocation.cosines},
        cosines=allocation.cosines,
        linears=pruning.report,
        token_share=pruning.token_share,
        masks=pruning.masks | (towers.masks if towers else {}),
        seconds=parts.timer.seconds,
        files=files,
        towers=towers.report if towers else {},
        unreached=towers.unreached if towers else [],
        chosen=parts.chosen.chosen,
        loggers=loggers,
    )


def linear_shapes(stream: Stream) -> dict[str, tuple[int, int]]:
    """Shape of every prunable weight, by the linear's full name; known before a weight is read."""
    return {linear.full: linear.shape for linear in stream.facts.all_linears}


def check_pattern(stream: Stream, method: Method) -> None:
    """Refuse a pattern or mode that does not fit the sparsity or a linear's shape, of towers too if they are pruned.

    Raises:
        InputError: naming the linear.
    """
    method.check(linear_shapes(stream))
    check_experts(stream.model, stream.facts, method)
    if stream.facts.towers:
        towers = stream.towers.method(method)
        towers.pattern_rule.check(towers.sparsity, {linear.full: linear.shape for linear in stream.facts.towers})


def _check_plan(plan: dict[str, int], report: dict[str, dict[str, Any]]) -> None:
    wrong = [n for n, kept in plan.items() if n not in report or report[n]["kept"] != kept]
    if wrong:
        raise RuntimeError(f"{len(wrong)} linears are not pruned as planned, such as {wrong[0]}")
