"""The main job: score the dense model, prune it, score what was written, leave a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from rich.console import Console
from rich.markup import escape

from tamp_lightning.config.recipe import PruneRecipe
from tamp_lightning.evaluation.scoring import Scores
from tamp_lightning.evaluation.summary import prediction_rows, summarise, write_predictions
from tamp_lightning.passes.pruned import Pruned
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.reporting.html import write_report
from tamp_lightning.reporting.logs import log_run
from tamp_lightning.reporting.plan import PlanView
from tamp_lightning.reporting.run import Run
from tamp_lightning.reporting.table import show_outcome
from tamp_lightning.runs.folder import RunFolder
from tamp_lightning.tasks.prune_files import describe_examples, describe_run, write_folder
from tamp_lightning.tasks.prune_setup import Job


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
        Contents of run.json and metrics.json, None for the latter if nothing was scored; empty in other processes.
    """
    L.seed_everything(job.recipe.seed, verbose=False)
    riders = job.riders()
    kept: dict[str, Any] = {"state": job.state, "space": job.cache_space(), "riders": riders}
    pruned = prune_stream(job.stream, job.data, job.recipe.method, **kept, **job.recipe.trainer)
    job.clock.seconds |= pruned.seconds
    job.share_name()
    after: list[Scores] = []
    if riders:
        job.dense, after = riders.scores()
    elif job.tasks:
        after = job.scorer.score(RunFolder(job.out).model, "score pruned", job.source)
    run, metrics = _write(job, recipe_text, pruned, after) if job.is_first else ({}, None)
    if job.state is not None:
        job.state.close()
    return run, metrics


def _write(
    job: Job, recipe_text: str, pruned: Pruned, after: list[Scores]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Everything in the run folder beside the checkpoint; contents of run.json and metrics.json."""
    folder, run, metrics = RunFolder(job.out), describe_run(job, pruned), None
    rows = _rows(job, after)
    if after:
        metrics = summarise(job.tasks, job.dense, after)
        write_predictions(folder.predictions, rows)
    folder.write_examples(describe_examples(job, pruned, metrics, rows))
    write_folder(job, recipe_text, pruned, run, metrics)
    log_run(pruned.loggers, PlanView(pruned.plan), metrics)
    return run, metrics


def _rows(job: Job, after: list[Scores]) -> list[dict[str, Any]]:
    return [
        row
        for task, dense, pruned in zip(job.tasks, job.dense, after, strict=False)
        for row in prediction_rows(task, {"dense": dense, "pruned": pruned})
    ]
