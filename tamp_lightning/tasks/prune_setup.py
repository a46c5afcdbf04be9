"""A prune recipe taken apart: what it names is found and checked before any weight is touched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from transformers import AutoProcessor

from tamp_lightning.config.recipe import PruneRecipe
from tamp_lightning.distributed.collectives import broadcast_outside
from tamp_lightning.distributed.processes import check_processes
from tamp_lightning.evaluation.layerwise import LayerwiseScores
from tamp_lightning.evaluation.scorer import Scorer
from tamp_lightning.methods.selection import Selection
from tamp_lightning.passes.trainer import check_pattern, scoring_trainer
from tamp_lightning.runs.clock import PhaseClock
from tamp_lightning.runs.place import Place
from tamp_lightning.runs.resume import may_continue, run_path, settings_of
from tamp_lightning.stream.cache import CacheSpace
from tamp_lightning.stream.disk import DiskStream
from tamp_lightning.stream.follower import FollowerStream
from tamp_lightning.tasks.benchmarks import Say, scored_tasks
from tamp_lightning.tasks.calibration import calibration_data
from tamp_lightning.tasks.prune_parts import Provenance, Pruner, Scoring
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
        self.place = replace(self.place, folder=broadcast_outside(self.place.folder))


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
    trainer, clock = scoring_trainer(**recipe.trainer), PhaseClock()
    out = run_path(recipe.out, name, trainer.is_global_zero)
    place, limit = Place.find(out, recipe.model.dtype, trainer), recipe.cache.limit_gb
    with clock.phase("prepare"):
        source = resolve(recipe.model.checkpoint)
        lasting = may_continue(trainer, out, recipe.out is not None, recipe.scores.is_layerwise, limit)
        state = place.state(source, settings_of(recipe)) if lasting else None
        processor = AutoProcessor.from_pretrained(source)
        samples, data = calibration_data(recipe.calibration, processor)
        check_processes(trainer, recipe.method, data.batches)
        tasks = scored_tasks(recipe.scores, processor, say)
        scorer = Scorer(tasks, recipe.scores.batch_size, place.dtype, recipe.trainer, clock, say)
        wanted = Selection(recipe.model.include, recipe.model.exclude, recipe.towers)
        stream = _stream(source, place, wanted, resumes=bool(state and state.resumes))
        check_pattern(stream, recipe.method)
    space = None if limit is None or state is None else CacheSpace(state.folder, int(limit * 1e9))
    pruner = Pruner(stream, data, recipe.method, recipe.trainer, recipe.seed, state, space)
    layerwise = LayerwiseScores.of(tasks, recipe.scores.batch_size) if recipe.scores.is_layerwise else None
    scoring = Scoring(scorer, source, layerwise)
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


def _stream(source: Path, place: Place, wanted: Selection, resumes: bool) -> DiskStream:
    kind = DiskStream if place.is_first else FollowerStream
    out, dtype, device = place.folder.model, place.dtype, place.device
    return kind(source, out, dtype=dtype, device=device, selection=wanted, resumes=resumes)
