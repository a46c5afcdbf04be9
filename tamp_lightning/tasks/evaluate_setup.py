"""An evaluate recipe taken apart: what it names is found and checked before a weight is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from rich.console import Console

from tamp_lightning.benchmarks.registry import check_names
from tamp_lightning.config.recipe import EvaluateRecipe
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.scorer import HASH_LENGTH, Scorer
from tamp_lightning.evaluation.task import Task
from tamp_lightning.evaluation.whole import checkpoint_sha256, load_processor
from tamp_lightning.passes.trainer import scoring_trainer
from tamp_lightning.runs.environment import compute_dtype
from tamp_lightning.tasks.benchmarks import build_tasks, scored_tasks
from tamp_lightning.testbeds.checkpoints import resolve

OUT = "runs/evaluate"


@dataclass(frozen=True)
class Evaluation:
    """A checkpoint and what it is asked, ready to be scored."""

    recipe: EvaluateRecipe
    folder: Path
    """The checkpoint."""
    tasks: Sequence[Task]
    place: Path
    """Where its results go, below the recipe's `out`."""
    trainer: L.Trainer
    dtype: torch.dtype | None
    """What to compute in; None = the checkpoint's own."""
    console: Console

    @classmethod
    def prepare(cls, recipe: EvaluateRecipe, console: Console) -> Evaluation:
        """Read the questions and the processor.

        Raises:
            InputError, FileNotFoundError: bad input.
        """
        check_names(recipe.benchmarks)
        if recipe.scores.mode != "whole":
            raise InputError(f"scores.mode is {recipe.scores.mode}, which is for task prune: set scores.mode: whole")
        folder = resolve(recipe.model.checkpoint)
        trainer = scoring_trainer(**recipe.trainer)

        def say(line: str) -> None:
            if trainer.is_global_zero:
                console.print(line, soft_wrap=True, highlight=False)

        tasks_of = build_tasks if recipe.reference is None else scored_tasks
        tasks = tasks_of(recipe.asked, load_processor(folder), say)
        dtype = compute_dtype(recipe.model.dtype, trainer.strategy.root_device)
        name = f"{Path(recipe.model.checkpoint).name}-{checkpoint_sha256(folder)[:HASH_LENGTH]}"
        return cls(recipe, folder, tasks, Path(recipe.out or OUT) / name, trainer, dtype, console)

    @property
    def is_first(self) -> bool:
        """Whether this process writes."""
        return self.trainer.is_global_zero

    def scorer(self, tasks: Sequence[Task], size: int) -> Scorer:
        """Scores tasks in batches of `size`."""
        return Scorer(tasks, size, self.dtype, self.recipe.trainer, say=self.say)

    def say(self, line: str) -> None:
        """Print a line, in the first process."""
        if self.is_first:
            self.console.print(line, soft_wrap=True, highlight=False)
