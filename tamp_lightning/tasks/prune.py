"""The main job: score the dense model, prune it, score what was written, leave a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.markup import escape
from transformers import AutoProcessor, ProcessorMixin

from tamp_lightning.config.recipe import CalibrationChoice, PruneRecipe
from tamp_lightning.data import sources
from tamp_lightning.data.calibration import CalibrationData, SampleList
from tamp_lightning.distributed.processes import check_processes
from tamp_lightning.evaluation.comparison import Scored
from tamp_lightning.evaluation.packed import PackedTask
from tamp_lightning.evaluation.riding import ScoreRiders
from tamp_lightning.evaluation.scorer import Scorer
from tamp_lightning.evaluation.scoring import Scores
from tamp_lightning.evaluation.summary import prediction_rows, summarise, write_predictions
from tamp_lightning.evaluation.task import Task
from tamp_lightning.files import write_json, write_text
from tamp_lightning.passes.trainer import Pruned, check_pattern, prune_stream, scoring_trainer
from tamp_lightning.reporting.card import Base, prune_card, write_cards
from tamp_lightning.reporting.examples import examples_content, worst_flips
from tamp_lightning.reporting.html import write_report
from tamp_lightning.reporting.logs import log_run
from tamp_lightning.reporting.plan import Plan
from tamp_lightning.reporting.run import Run
from tamp_lightning.reporting.table import show_outcome
from tamp_lightning.runs.clock import PhaseClock
from tamp_lightning.runs.environment import compute_dtype, environment, peak_memory_bytes
from tamp_lightning.runs.fingerprint import fingerprint
from tamp_lightning.runs.resume import may_continue, run_path, settings_of
from tamp_lightning.runs.state import RunState
from tamp_lightning.stream.cache import CacheSpace
from tamp_lightning.stream.disk import DiskStream
from tamp_lightning.stream.follower import FollowerStream
from tamp_lightning.tasks import run_folder
from tamp_lightning.tasks.benchmarks import Say, build_tasks, check_answers
from tamp_lightning.testbeds.checkpoints import resolve
from tamp_lightning.testbeds.clip_samples import clip_samples


def calibration_samples(choice: CalibrationChoice, processor: ProcessorMixin) -> SampleList:
    """The samples a recipe asks for.

    Raises:
        InputError: there are too few, or a file is not what it should be.
        FileNotFoundError: easy-VQA is not installed.
    """
    if choice.source == "easy_vqa":
        return sources.from_easy_vqa(choice.samples, choice.seed, choice.turns)
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
            say: takes a line on what is downloaded or found in the cache, in the first process.

        Raises:
            InputError, FileNotFoundError: bad input.
        """
        trainer = scoring_trainer(**recipe.trainer)
        out, clock = run_path(recipe, name, trainer.is_global_zero), PhaseClock()
        device = trainer.strategy.root_device
        say = say if trainer.is_global_zero else lambda line: None
        dtype = compute_dtype(recipe.model.dtype, device)
        with clock.phase("prepare"):
            source = resolve(recipe.model.checkpoint)
            state = None
            if may_continue(recipe, trainer, out):
                state = RunState(out, fingerprint(source, settings_of(recipe), dtype, device))
            processor = AutoProcessor.from_pretrained(source)
            samples = calibration_samples(recipe.calibration, processor)
            given = recipe.calibration
            data = CalibrationData.from_samples(samples, processor, given.batch_size, given.drop_silence)
            check_processes(trainer, recipe.method, data.batches, recipe.towers)
            tasks = build_tasks(recipe.scores, processor, say)
            check_answers(tasks)
            scorer = Scorer(tasks, recipe.scores.batch_size, dtype, recipe.trainer, clock, say)
            patterns: dict[str, Any] = {"include": recipe.model.include, "exclude": recipe.model.exclude}
            where: dict[str, Any] = {"dtype": dtype, "device": device, "resumes": bool(state and state.resumes)}
            kind = DiskStream if trainer.is_global_zero else FollowerStream
            stream = kind(source, out / "model", towers=recipe.towers, **where, **patterns)
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


def run_prune(recipe: PruneRecipe, name: str, recipe_text: str, console: Console) -> Path:
    """Do what a prune recipe says and return the run folder.

    Raises:
        InputError, FileNotFoundError: bad input, before anything is written.
    """
    job = Job.prepare(recipe, name, lambda line: console.print(line, soft_wrap=True, highlight=False))
    again = " (continued)" if job.state and job.state.resumes else ""
    if job.is_first:
        console.print(f"run folder: {job.out}{again}", soft_wrap=True, highlight=False)
    job.score_dense()
    run, metrics = prune_job(job, recipe_text)
    if job.is_first:
        show_outcome(console, metrics, run, Run.read(job.out).plan)
        console.print(f"report: [bold]{escape(str(write_report(job.out)))}[/bold]", soft_wrap=True, highlight=False)
    return job.out


def prune_job(job: Job, recipe_text: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Prune, score what was written, and leave the run folder, which only the first process writes.

    Args:
        job: everything the recipe names, the dense model scored.
        recipe_text: content of the folder's recipe.yaml.

    Returns:
        Contents of run.json and metrics.json, None for the latter if nothing was scored.
    """
    L.seed_everything(job.recipe.seed, verbose=False)
    riders = job.riders()
    kept: dict[str, Any] = {"state": job.state, "space": job.cache_space(), "riders": riders}
    pruned = prune_stream(job.stream, job.data, job.recipe.method, **kept, **job.recipe.trainer)
    job.clock.seconds |= pruned.seconds
    # a default name tells the time, and nobody may read before all is written
    job.out = scoring_trainer(**job.recipe.trainer).strategy.broadcast(job.out)
    after: list[Scores] = []
    if riders:
        job.dense, after = riders.scores()
    elif job.tasks:
        after = job.scorer.score(job.out / "model", "score pruned", job.source)
    run, metrics = _describe(job, pruned), None
    rows = _rows(job, after)
    if after:
        metrics = summarise(job.tasks, job.dense, after)
        if job.is_first:
            write_predictions(job.out / "predictions.parquet", rows)
    if job.is_first:
        write_json(job.out / "examples.json", _examples(job, pruned, metrics, rows))
        _write(job, recipe_text, pruned, run, metrics)
        log_run(pruned.loggers, Plan(run_folder.plan_content(pruned)["linears"]), metrics)
    if job.state is not None:
        job.state.close()
    return run, metrics


def _rows(job: Job, after: list[Scores]) -> list[dict[str, Any]]:
    return [
        row
        for task, dense, pruned in zip(job.tasks, job.dense, after, strict=False)
        for row in prediction_rows(task, {"dense": dense, "pruned": pruned})
    ]


def _examples(job: Job, pruned: Pruned, metrics: dict[str, Any] | None, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Content of examples.json; the pictures are those of the worst flips."""
    worst = worst_flips(Scored(metrics, rows).rows) if metrics else []
    of = {name: task for task in job.tasks for name in task.chance()}
    shown = {str(row["picture"]): of[row["benchmark"]].picture(row["picture"]) for row in worst}
    pictures = {name: picture for name, picture in sorted(shown.items()) if picture is not None}
    samples = (job.samples[index] for index in range(len(job.samples)))
    return examples_content(pruned.chosen, samples, job.stream.model.config, pictures)


def _describe(job: Job, pruned: Pruned) -> dict[str, Any]:
    size = sum(row["size"] for row in pruned.linears.values())
    kept = sum(row["kept"] for row in pruned.linears.values())
    return {
        "recipe": job.name,
        "source": str(job.source),
        "checkpoint": str(job.out / "model"),
        "dtype": str(job.stream.model.dtype).removeprefix("torch."),
        "seed": job.recipe.seed,
        "sparsity": pruned.sparsity,
        "prunable_weights": size,
        "zeroed_weights": size - kept,
        **run_folder.sizes(job.source, job.out / "model"),
        "linears": len(pruned.linears),
        **_describe_towers(pruned),
        "processes": job.processes,
        "seconds": job.clock.seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        **environment(),
        "files": pruned.files,
    }


def _describe_towers(pruned: Pruned) -> dict[str, Any]:
    if not pruned.towers:
        return {}
    size = sum(row["size"] for row in pruned.towers.values())
    return {
        "towers": {"sparsity": pruned.towers_sparsity, "prunable_weights": size, "linears": len(pruned.towers)},
        "towers_unreached": pruned.unreached,
    }


def _write(job: Job, recipe_text: str, pruned: Pruned, run: dict[str, Any], metrics: dict[str, Any] | None) -> None:
    out, recipe, plan = job.out, job.recipe, run_folder.plan_content(pruned)
    write_text(out / "recipe.yaml", recipe_text)
    write_json(out / "plan.json", plan)
    run_folder.write_masks(out, pruned)
    if metrics is not None:
        write_json(out / "metrics.json", metrics)
    base = Base.find(job.source, recipe.model.checkpoint)
    versions = {"python": run["python"], **run["packages"]}
    card = prune_card(base, plan, asdict(recipe.method), asdict(recipe.calibration), metrics, versions)
    run["files"] |= write_cards(out / "model", card, base)
    write_json(out / "run.json", run)
