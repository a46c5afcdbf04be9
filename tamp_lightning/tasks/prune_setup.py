"""A prune recipe taken apart: what it names is found and checked before any weight is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
from transformers import AutoProcessor

from tamp_lightning.config.recipe import CacheChoice, ModelChoice, PruneRecipe, ScoreChoice
from tamp_lightning.distributed.processes import check_processes
from tamp_lightning.evaluation.layerwise import LayerwiseScores
from tamp_lightning.evaluation.packed import PackedTask
from tamp_lightning.evaluation.scorer import Scorer
from tamp_lightning.evaluation.task import Task
from tamp_lightning.methods.towers import Towers
from tamp_lightning.passes.trainer import check_pattern, scoring_trainer
from tamp_lightning.runs.clock import PhaseClock
from tamp_lightning.runs.environment import compute_dtype
from tamp_lightning.runs.fingerprint import fingerprint
from tamp_lightning.runs.folder import RunFolder
from tamp_lightning.runs.resume import may_continue, run_path, settings_of
from tamp_lightning.runs.state import OthersState, RunState
from tamp_lightning.stream.cache import CacheSpace
from tamp_lightning.stream.disk import DiskStream
from tamp_lightning.stream.follower import FollowerStream
from tamp_lightning.tasks.benchmarks import Say, build_tasks, check_answers
from tamp_lightning.tasks.calibration import calibration_data
from tamp_lightning.tasks.prune_parts import Place, Provenance, Pruner, Scoring
from tamp_lightning.testbeds.checkpoints import resolve


@dataclass
class Job:
    """A prune run, ready to start."""

    place: Place
    pruner: Pruner
    scoring: Scoring
    origin: Provenance
    clock: PhaseClock

    @property
    def resumes(self) -> bool:
        """Whether it goes on with a run that was killed."""
        return bool(self.pruner.state and self.pruner.state.resumes)

    def share_name(self) -> None:
        """Take the run folder of the first process: a default name tells the time. To be called after the passes."""
        first = scoring_trainer(**self.pruner.trainer).strategy.broadcast(self.place.folder)
        self.place = replace(self.place, folder=first)


def prepare(recipe: PruneRecipe, name: str, text: str, say: Say = lambda line: None) -> Job:
    """Find the checkpoint, the samples and the benchmarks; read everything but the decoder blocks.

    Args:
        recipe: what is asked for.
        name: of the recipe.
        text: what the run folder shall hold of it.
        say: takes a line on what is downloaded or found in the cache.

    Raises:
        InputError, FileNotFoundError: bad input.
    """
    trainer = scoring_trainer(**recipe.trainer)
    out = run_path(recipe.out, name, trainer.is_global_zero)
    place, clock = _place(out, recipe.model.dtype, trainer), PhaseClock()
    with clock.phase("prepare"):
        source = resolve(recipe.model.checkpoint)
        state = _state(recipe, source, place, trainer)
        processor = AutoProcessor.from_pretrained(source)
        samples, data = calibration_data(recipe.calibration, processor)
        check_processes(trainer, recipe.method, data.batches)
        tasks = build_tasks(recipe.scores, processor, say)
        check_answers(tasks)
        scorer = Scorer(tasks, recipe.scores.batch_size, place.dtype, recipe.trainer, clock, say)
        stream = _stream(recipe.model, recipe.towers, source, place, resumes=bool(state and state.resumes))
        check_pattern(stream, recipe.method)
    pruner = Pruner(stream, data, recipe.method, recipe.trainer, recipe.seed, state, _space(recipe.cache, state))
    scoring = Scoring(scorer, source, _layerwise(recipe.scores, tasks))
    origin = Provenance(
        recipe=name,
        text=text,
        checkpoint=recipe.model.checkpoint,
        source=source,
        model=stream.model,
        seed=recipe.seed,
        method=recipe.method,
        calibration=recipe.calibration,
        samples=samples,
    )
    return Job(place, pruner, scoring, origin, clock)


def _place(out: Path, dtype: str, trainer: L.Trainer) -> Place:
    device = trainer.strategy.root_device
    return Place(RunFolder(out), trainer.is_global_zero, trainer.world_size, device, compute_dtype(dtype, device))


def _state(recipe: PruneRecipe, source: Path, place: Place, trainer: L.Trainer) -> RunState | None:
    """What is kept of the run; None if it could not be continued anyway."""
    out = place.folder.path
    if not may_continue(trainer, out, recipe.out is not None, recipe.scores.is_layerwise, recipe.cache):
        return None
    if not place.is_first:
        return OthersState(out)
    return RunState(out, fingerprint(source, settings_of(recipe), place.dtype, place.device, place.processes))


def _stream(choice: ModelChoice, towers: Towers, source: Path, place: Place, resumes: bool) -> DiskStream:
    kind = DiskStream if place.is_first else FollowerStream
    how: dict[str, Any] = {"dtype": place.dtype, "device": place.device, "towers": towers, "resumes": resumes}
    return kind(source, place.folder.model, include=choice.include, exclude=choice.exclude, **how)


def _space(choice: CacheChoice, state: RunState | None) -> CacheSpace | None:
    """Where hidden states wait between two blocks; None = in RAM."""
    if choice.limit_gb is None or state is None:
        return None
    return CacheSpace(state.folder, int(choice.limit_gb * 1e9))


def _layerwise(choice: ScoreChoice, tasks: Sequence[Task]) -> LayerwiseScores | None:
    """What passes the blocks together with calibration to be scored; None if whole models are, or nothing is."""
    packed = [task for task in tasks if isinstance(task, PackedTask)]
    return LayerwiseScores(packed, choice.batch_size) if choice.is_layerwise else None
