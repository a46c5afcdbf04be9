"""The main job: score the dense model, prune it, score what was written, leave a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from tamp_lightning.reporting.html import write_report
from tamp_lightning.reporting.logs import log_run
from tamp_lightning.reporting.plan import PlanView
from tamp_lightning.reporting.run import Run
from tamp_lightning.reporting.table import show_outcome
from tamp_lightning.tasks.prune_files import describe_run, write_folder
from tamp_lightning.tasks.prune_setup import Job


def run_prune(job: Job, console: Console) -> Path:
    """Score the dense model, prune it, show what came out and return the run folder.

    Args:
        job: what `prepare` made of a recipe.
        console: where the run is shown.
    """
    if job.place.is_first:
        again = " (continued)" if job.resumes else ""
        console.print(f"run folder: {job.place.folder.path}{again}", soft_wrap=True, highlight=False)
    job.scoring.score_dense()
    run, metrics = prune_job(job)
    out = job.place.folder.path
    if job.place.is_first:
        show_outcome(console, metrics, run, Run.read(out).plan)
        console.print(f"report: [bold]{escape(str(write_report(out)))}[/bold]", soft_wrap=True, highlight=False)
    return out


def prune_job(job: Job) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Prune, score what was written, and leave the run folder, which only the first process writes.

    Args:
        job: the run, its dense model scored.

    Returns:
        Contents of run.json and metrics.json, None for the latter if nothing was scored; empty in other processes.
    """
    pruned = job.pruner.run(job.scoring.layerwise)
    job.clock.seconds |= pruned.seconds
    job.share_name()
    job.scoring.score_pruned(job.place.folder.model)
    run: dict[str, Any] = {}
    metrics: dict[str, Any] | None = None
    if job.place.is_first:  # the others may not see the folder
        run, metrics = describe_run(job.place, job.origin, pruned, job.clock), job.scoring.metrics()
        write_folder(job.place.folder, job.origin, job.scoring, pruned, run, metrics)
        log_run(pruned.loggers, PlanView(pruned.plan), metrics)
    if job.pruner.state is not None:
        job.pruner.state.close()
    return run, metrics
