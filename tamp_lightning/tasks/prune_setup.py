"""What a prune recipe names, found and checked before any weight is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor, ProcessorMixin

from tamp_lightning.config.recipe import CalibrationChoice, PruneRecipe
from tamp_lightning.data import sources
from tamp_lightning.data.calibration import CalibrationData, SampleList
from tamp_lightning.distributed.processes import check_processes
from tamp_lightning.evaluation.packed import PackedTask
from tamp_lightning.evaluation.riding import ScoreRiders
from tamp_lightning.evaluation.scorer import Scorer
from tamp_lightning.evaluation.scoring import Scores
from tamp_lightning.evaluation.task import Task
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
from tamp_lightning.testbeds.checkpoints import resolve
from tamp_lightning.testbeds.clip_samples import clip_samples
from tamp_lightning.testbeds.skill_samples import caption_samples, skill_samples


def calibration_samples(choice: CalibrationChoice, processor: ProcessorMixin) -> SampleList:
    """The samples a recipe asks for.

    Raises:
        InputError: there are too few, or a file is not what it should be.
        FileNotFoundError: easy-VQA is not installed.
    """
    if choice.source == "easy_vqa":
        return sources.from_easy_vqa(choice.samples, choice.seed, choice.turns)
    if choice.source in ("easy_vqa_forms", "skills"):
        return skill_samples(choice.samples, choice.seed, choice.turns, scenes=choice.source == "skills")
    if choice.source == "captions":
        return caption_samples(choice.samples, choice.seed)
    if choice.source == "clips":
        return clip_samples(choice.samples, choice.seed, choice.turns)
    path = str(choice.path)
    if choice.source == "llava_json":
        media = Path(choice.media) if choice.media else None
        return sources.from_llava_json(Path(path), media, choice.samples, choice.seed, processor, choice.bad_rows)
    return sources.from_llava_next_data(path, choice.subset, choice.samples, choice.seed, bad_rows=choice.bad_rows)


@dataclass
class Job:
    """A prune recipe with everything it names found and checked, before any weight is touched."""

    recipe: PruneRecipe
    name: str
    out: Path
    source: Path
    dtype: torch.dtype | None
    samples: SampleList
    data: CalibrationData
    scorer: Scorer
    stream: DiskStream
    state: RunState | None
    """What is kept of it; None if it could not be continued anyway."""
    clock: PhaseClock
    processes: int = 1
    is_first: bool = True
    """Whether this process writes."""
    dense: list[Scores] = field(default_factory=list)
    """What the source scored on each task, once that is known."""

    @classmethod
    def prepare(cls, recipe: PruneRecipe, name: str, say: Say = lambda line: None) -> Job:
        """Find the checkpoint, the samples and the benchmarks; read everything but the decoder blocks.

        Args:
            recipe: what is asked for.
            name: of the recipe.
            say: takes a line on what is downloaded or found in the cache.

        Raises:
            InputError, FileNotFoundError: bad input.
        """
        trainer = scoring_trainer(**recipe.trainer)
        out, clock = run_path(recipe, name, trainer.is_global_zero), PhaseClock()
        device = trainer.strategy.root_device
        dtype = compute_dtype(recipe.model.dtype, device)
        with clock.phase("prepare"):
            source = resolve(recipe.model.checkpoint)
            state = None
            if may_continue(recipe, trainer, out):
                known = (source, settings_of(recipe), dtype, device, trainer.world_size)
                state = RunState(out, fingerprint(*known)) if trainer.is_global_zero else OthersState(out)
            processor = AutoProcessor.from_pretrained(source)
            samples = calibration_samples(recipe.calibration, processor)
            given = recipe.calibration
            data = CalibrationData.from_samples(samples, processor, given.batch_size, given.drop_silence)
            check_processes(trainer, recipe.method, data.batches)
            tasks = build_tasks(recipe.scores, processor, say)
            check_answers(tasks)
            scorer = Scorer(tasks, recipe.scores.batch_size, dtype, recipe.trainer, clock, say)
            patterns: dict[str, Any] = {"include": recipe.model.include, "exclude": recipe.model.exclude}
            where: dict[str, Any] = {"dtype": dtype, "device": device, "resumes": bool(state and state.resumes)}
            kind = DiskStream if trainer.is_global_zero else FollowerStream
            stream = kind(source, RunFolder(out).model, towers=recipe.towers, **where, **patterns)
            check_pattern(stream, recipe.method)
        who = trainer.world_size, trainer.is_global_zero
        return cls(recipe, name, out, source, dtype, samples, data, scorer, stream, state, clock, *who)

    def cache_space(self) -> CacheSpace | None:
        """Where hidden states wait between two blocks; None = in RAM."""
        limit = self.recipe.cache.limit_gb
        if limit is None or self.state is None:
            return None
        return CacheSpace(self.state.folder, int(limit * 1e9))

    @property
    def tasks(self) -> Sequence[Task]:
        """What is scored."""
        return self.scorer.tasks

    def riders(self) -> ScoreRiders | None:
        """What passes the blocks together with calibration to be scored; None if whole models are, or nothing is."""
        packed = [task for task in self.tasks if isinstance(task, PackedTask)]
        return ScoreRiders(packed, self.recipe.scores.batch_size) if self.recipe.scores.rides else None

    def score_dense(self) -> None:
        """Score the source, unless nothing is scored or it is as it is pruned."""
        if self.tasks and not self.recipe.scores.rides:
            self.dense = self.scorer.score(self.source, "score dense")

    def share_name(self) -> None:
        """Take the run folder of the first process: a default name tells the time. To be called after the passes."""
        self.out = scoring_trainer(**self.recipe.trainer).strategy.broadcast(self.out)
