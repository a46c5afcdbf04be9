"""A checkpoint beside another, such as the dense one: both are scored, and a page says what differs."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from tamp_lightning.evaluation.items import ItemTask
from tamp_lightning.evaluation.packed import PackedTask
from tamp_lightning.evaluation.scoring import Scores
from tamp_lightning.evaluation.summary import prediction_rows, summarise, write_predictions
from tamp_lightning.evaluation.task import Task
from tamp_lightning.files import write_json
from tamp_lightning.reporting.quality import write_quality
from tamp_lightning.reporting.table import show_scores
from tamp_lightning.tasks.evaluate_setup import Evaluation


def compare(job: Evaluation, dense: Path) -> None:
    """Score the reference too; metrics.json, predictions.parquet and report.html of both in the evaluation's place."""
    tasks, before, after = _scored(job, dense)
    if not job.is_first:
        return
    rows = [
        row
        for task, d, p in zip(tasks, before, after, strict=True)
        for row in prediction_rows(task, {"dense": d, "pruned": p})
    ]
    metrics = summarise(tasks, before, after)
    job.place.mkdir(parents=True, exist_ok=True)
    write_json(job.place / "metrics.json", metrics)
    write_predictions(job.place / "predictions.parquet", rows)
    title = f"{job.recipe.model.checkpoint} beside {job.recipe.reference}"
    page = write_quality(job.place / "report.html", title, metrics, rows, tasks)
    show_scores(job.console, metrics)
    job.console.print(f"report: [bold]{escape(str(page))}[/bold]", soft_wrap=True, highlight=False)


def _scored(job: Evaluation, dense: Path) -> tuple[list[Task], list[Scores], list[Scores]]:
    """The tasks, with scores of the reference and of the checkpoint."""
    tasks: list[Task] = []
    before: list[Scores] = []
    after: list[Scores] = []
    for kind, size in ((ItemTask, job.recipe.batch_size), (PackedTask, job.recipe.scores.batch_size)):
        own = [task for task in job.tasks if isinstance(task, kind) and task not in tasks]
        scorer = job.scorer(own, size)
        tasks += own
        before += scorer.score(dense, "score reference")
        after += scorer.score(job.folder, "score", dense)
    return tasks, before, after
