"""The main job: score the dense model, prune it, score what was written, leave a run folder."""

from __future__ import annotations

import gc
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.markup import escape
from transformers import AutoConfig, AutoProcessor, PreTrainedModel, ProcessorMixin

from tamp_lightning.checkpoint.skeleton import model_class
from tamp_lightning.config.recipe import CalibrationChoice, PruneRecipe
from tamp_lightning.data import sources
from tamp_lightning.data.calibration import CalibrationData, SampleList
from tamp_lightning.distributed.processes import check_processes
from tamp_lightning.evaluation.riding import ScoreRiders
from tamp_lightning.evaluation.scoring import Scores, score
from tamp_lightning.evaluation.suite import Suite
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
from tamp_lightning.tasks.kept_scores import load_scores, save_scores
from tamp_lightning.testbeds.checkpoints import resolve
from tamp_lightning.testbeds.clip_samples import clip_samples
from tamp_lightning.testbeds.suites import build_suite

DENSE = "dense"
"""Record of the source's scores in the state of a run."""


def load_whole(folder: Path, dtype: torch.dtype | None) -> PreTrainedModel:
    """The whole model of a checkpoint, for scoring."""
    return model_class(AutoConfig.from_pretrained(folder)).from_pretrained(folder, dtype=dtype or "auto").eval()


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
    suite: Suite | None
    stream: DiskStream
    state: RunState | None
    """What is kept of it; None if it could not be continued anyway."""
    clock: PhaseClock
    processes: int = 1
    is_first: bool = True
    """Whether this process writes."""

    @classmethod
    def prepare(cls, recipe: PruneRecipe, name: str) -> Job:
        """Find the checkpoint, the samples and the benchmarks; read everything but the decoder blocks.

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
                state = RunState(out, fingerprint(source, settings_of(recipe), dtype, device))
            processor = AutoProcessor.from_pretrained(source)
            samples = calibration_samples(recipe.calibration, processor)
            given = recipe.calibration
            data = CalibrationData.from_samples(samples, processor, given.batch_size, given.drop_silence)
            check_processes(trainer, recipe.method, data.batches, recipe.towers)
            choice = recipe.scores
            suite = build_suite(choice.benchmarks, processor, choice.split, choice.slice)
            patterns: dict[str, Any] = {"include": recipe.model.include, "exclude": recipe.model.exclude}
            where: dict[str, Any] = {"dtype": dtype, "device": device, "resumes": bool(state and state.resumes)}
            kind = DiskStream if trainer.is_global_zero else FollowerStream
            stream = kind(source, out / "model", towers=recipe.towers, **where, **patterns)
            check_pattern(stream, recipe.method)
        who = trainer.world_size, trainer.is_global_zero
        return cls(recipe, name, out, source, dtype, samples, data, suite, stream, state, clock, *who)

    def cache_space(self) -> CacheSpace | None:
        """Where hidden states wait between two blocks; None = in RAM."""
        limit = self.recipe.cache.limit_gb
        if limit is None or self.state is None:
            return None
        return CacheSpace(self.state.folder, int(limit * 1e9))

    def riders(self) -> ScoreRiders | None:
        """What rides along to be scored; None if whole models are scored, or nothing is."""
        scores = self.recipe.scores
        return ScoreRiders(self.suite, scores.batch_size) if self.suite and scores.rides else None

    def score_dense(self) -> Scores | None:
        """Scores of the source, which an earlier run may have found already."""
        if self.state is None:
            return self.score(self.source, "score dense")
        scores = load_scores(self.state, DENSE) or self.score(self.source, "score dense")
        if scores is not None and not self.state.has(DENSE):
            save_scores(self.state, DENSE, scores)
        return scores

    def score(self, folder: Path, phase: str, dense: Scores | None = None) -> Scores | None:
        """Score the checkpoint in `folder`; None if the recipe names no benchmark, or its samples ride along."""
        if self.suite is None or self.recipe.scores.rides:
            return None
        with self.clock.phase(phase):
            model = load_whole(folder, self.dtype)
            trainer = scoring_trainer(phase, **self.recipe.trainer)
            scores = score(model, self.suite, trainer, batch_size=self.recipe.scores.batch_size, dense=dense)
        del model
        gc.collect()
        return scores


def run_prune(recipe: PruneRecipe, name: str, recipe_text: str, console: Console) -> Path:
    """Do what a prune recipe says and return the run folder.

    Raises:
        InputError, FileNotFoundError: bad input, before anything is written.
    """
    job = Job.prepare(recipe, name)
    again = " (continued)" if job.state and job.state.resumes else ""
    if job.is_first:
        console.print(f"run folder: {job.out}{again}", soft_wrap=True, highlight=False)
    dense = job.score_dense()
    run, metrics = prune_job(job, dense, recipe_text)
    if job.is_first:
        show_outcome(console, metrics, run, Run.read(job.out).plan)
        console.print(f"report: [bold]{escape(str(write_report(job.out)))}[/bold]", soft_wrap=True, highlight=False)
    return job.out


def prune_job(job: Job, dense: Scores | None, recipe_text: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Prune, score what was written, and leave the run folder, which only the first process writes.

    Args:
        job: everything the recipe names.
        dense: what the dense model scored on the job's benchmarks; None if there are none.
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
    after = job.score(job.out / "model", "score pruned", dense)
    if riders:
        dense, after = riders.scores()
    run, metrics = _describe(job, pruned), None
    if job.suite and dense and after:
        metrics = run_folder.summarise(job.suite, dense, after)
        if job.is_first:
            run_folder.write_predictions(job.out / "predictions.parquet", job.suite, dense, after)
    if job.is_first:
        write_json(job.out / "examples.json", _examples(job, pruned, dense, after))
        _write(job, recipe_text, pruned, run, metrics)
        log_run(pruned.loggers, Plan(run_folder.plan_content(pruned)["linears"]), metrics)
    if job.state is not None:
        job.state.close()
    return run, metrics


def _examples(job: Job, pruned: Pruned, dense: Scores | None, after: Scores | None) -> dict[str, Any]:
    """Content of examples.json; the pictures are those of the worst flips."""
    pictures = {}
    if job.suite and dense and after:
        numbers = {row["picture"] for row in worst_flips(run_folder.prediction_rows(job.suite, dense, after))}
        pictures = {str(number): job.suite.picture(number) for number in sorted(numbers)}
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
