"""A finetune recipe with everything it names found and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tamp_lightning.config.recipe import FinetuneRecipe
from tamp_lightning.data.finetuning import FinetuneBatches
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.scorer import Scorer
from tamp_lightning.evaluation.whole import load_processor
from tamp_lightning.finetune.batches import make_batches
from tamp_lightning.finetune.start import Start, find_dense, find_start
from tamp_lightning.finetune.trainer import epoch_lengths
from tamp_lightning.passes.trainer import scoring_trainer
from tamp_lightning.runs.clock import PhaseClock
from tamp_lightning.runs.environment import compute_dtype
from tamp_lightning.tasks.benchmarks import Say, scored_tasks


@dataclass
class Job:
    """A finetune recipe with everything it names found and checked, before any weight is trained."""

    recipe: FinetuneRecipe
    name: str
    out: Path
    start: Start
    dense: Path | None
    """The dense model: teacher, and what scores are compared with."""
    batches: FinetuneBatches
    scorer: Scorer
    clock: PhaseClock

    @classmethod
    def prepare(cls, recipe: FinetuneRecipe, name: str, out: Path, accumulate: int, say: Say) -> Job:
        """Find the checkpoint, its masks, the data and the teacher.

        Raises:
            InputError, FileNotFoundError: bad input.
        """
        if recipe.checkpoint is None:
            raise InputError("checkpoint is missing: name a run folder or a sparse checkpoint with --checkpoint=RUN")
        clock = PhaseClock()
        with clock.phase("prepare"):
            start = find_start(recipe.checkpoint, recipe.allow_dense)
            dense = find_dense(recipe, start)
            processor = load_processor(start.target.folder)
            batches = make_batches(recipe.data, processor, epoch_lengths(recipe.schedule, accumulate))
            given = {k: v for k, v in recipe.trainer.items() if k in ("accelerator", "enable_progress_bar")}
            dtype = compute_dtype("auto", scoring_trainer(**given).strategy.root_device)
            tasks = scored_tasks(recipe.scores, processor, say)
            scorer = Scorer(tasks, recipe.scores.batch_size, dtype, given, clock, say)
        return cls(recipe, name, out, start, dense, batches, scorer, clock)
