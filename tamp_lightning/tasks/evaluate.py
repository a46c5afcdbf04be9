"""Score a checkpoint on benchmarks, the test beds' own beside controls, and beside another if one is named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from tamp_lightning.benchmarks.registry import BEDS
from tamp_lightning.config.recipe import EvaluateRecipe
from tamp_lightning.evaluation.items import ItemTask
from tamp_lightning.evaluation.packed import PackedTask
from tamp_lightning.evaluation.whole import load_processor
from tamp_lightning.files import write_json
from tamp_lightning.reporting.benchmarks import figure_table, score_table, write_results
from tamp_lightning.reporting.table import control_table
from tamp_lightning.tasks.evaluate_files import write_scores
from tamp_lightning.tasks.evaluate_reference import compare
from tamp_lightning.tasks.evaluate_setup import Evaluation
from tamp_lightning.testbeds.checkpoints import resolve
from tamp_lightning.testbeds.suites import Shown, build_suite


def run_evaluate(recipe: EvaluateRecipe, console: Console) -> list[dict[str, Any]]:
    """Do what an evaluate recipe says; contents of the scores.json files, in the order of the recipe.

    What was scored before with the same inputs is not scored again; what was begun goes on.

    Raises:
        ValueError, FileNotFoundError: bad input, before a weight is read (but for media that only decoding finds bad).
    """
    job = Evaluation.prepare(recipe, console)
    public = _score_public(job)
    if job.is_first:
        _report(job, public)
    for name in (name for name in BEDS if name in recipe.benchmarks):
        _score_bed(job, name)
    if recipe.reference is not None:
        compare(job, resolve(recipe.reference))
    return public


def _score_public(job: Evaluation) -> list[dict[str, Any]]:
    """Contents of scores.json of each benchmark of a public format."""
    tasks = [task for task in job.tasks if isinstance(task, ItemTask)]
    scorer = job.scorer(tasks, job.recipe.batch_size)
    stores = [scorer.store(task, job.folder) for task in tasks]
    scores = scorer.score(job.folder, "score")
    found = [write_scores(job, *row) for row in zip(tasks, stores, scores, strict=True)]
    job.trainer.strategy.barrier()
    return found


def _report(job: Evaluation, scores: Sequence[dict[str, Any]]) -> None:
    """Tables in the terminal, results.json and results.csv over everything below `out`."""
    if scores:
        write_results(job.place.parent)
        job.console.print(score_table(scores))
        job.console.print(figure_table(scores))
        for row in scores:
            _tell(job, row)
        job.console.print(f"predictions and scores: [bold]{job.place.parent}[/bold]", soft_wrap=True)


def _tell(job: Evaluation, row: dict[str, Any]) -> None:
    """Print what is to be known of a benchmark's data, and where the replies for its server are."""
    for note in row.get("notes", []):
        job.say(f"{row['benchmark']}: {note}")
    if "submission" in row:
        job.say(f"{row['benchmark']} has no answers here and is not scored; for its server: {row['submission']}")


def _score_bed(job: Evaluation, name: str) -> None:
    """Score a test bed's questions with its own pictures or clips and with each control."""
    asked = job.recipe.scores
    kinds: list[Shown] = ["own", *job.recipe.controls]
    processor = load_processor(job.folder)
    suites: list[PackedTask] = []
    for kind in kinds:
        suite = build_suite(name, processor, asked.split, asked.slice, kind)
        assert suite is not None
        suites.append(suite)
    scores = job.scorer(suites, asked.batch_size).score(job.folder, "score")
    rows: dict[str, dict[str, dict[str, float]]] = {kind: own.results for kind, own in zip(kinds, scores, strict=True)}
    if not job.is_first:
        return
    floor = suites[0].chance()
    job.console.print(control_table(rows, floor))
    if job.recipe.out:
        job.place.mkdir(parents=True, exist_ok=True)
        content = {**rows, "floor": floor, "questions": len(suites[0].rows()), "split": suites[0].split}
        write_json(job.place / f"{name}_{suites[0].split}_{asked.slice}.json", content)
