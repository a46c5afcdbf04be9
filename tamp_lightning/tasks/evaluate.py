"""Score a checkpoint on benchmarks, the test beds' own beside controls, and beside another if one is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from tamp_lightning.benchmarks.registry import BEDS, check_names
from tamp_lightning.checkpoint.reader import read_json
from tamp_lightning.config.recipe import EvaluateRecipe
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.items import ItemTask
from tamp_lightning.evaluation.packed import PackedTask
from tamp_lightning.evaluation.scorer import HASH_LENGTH, Scorer
from tamp_lightning.evaluation.scoring import Scores
from tamp_lightning.evaluation.store import Store
from tamp_lightning.evaluation.summary import prediction_rows, summarise, write_predictions
from tamp_lightning.evaluation.task import Task
from tamp_lightning.evaluation.whole import checkpoint_sha256, load_processor
from tamp_lightning.files import write_bytes, write_json
from tamp_lightning.passes.trainer import scoring_trainer
from tamp_lightning.reporting.benchmarks import figure_table, score_table, write_results
from tamp_lightning.reporting.quality import write_quality
from tamp_lightning.reporting.table import control_table, show_scores
from tamp_lightning.runs.environment import compute_dtype, environment
from tamp_lightning.tasks.benchmarks import build_tasks, check_answers
from tamp_lightning.testbeds.checkpoints import resolve
from tamp_lightning.testbeds.suites import Shown, build_suite

OUT = "runs/evaluate"


def run_evaluate(recipe: EvaluateRecipe, console: Console) -> list[dict[str, Any]]:
    """Do what an evaluate recipe says; contents of the scores.json files, in the order of the recipe.

    What was scored before with the same inputs is not scored again; what was begun goes on.

    Raises:
        ValueError, FileNotFoundError: bad input, before a weight is read (but for media that only decoding finds bad).
    """
    job = Evaluation.prepare(recipe, console)
    public = job.score_public()
    if job.is_first:
        job.report(public)
    for name in (name for name in BEDS if name in recipe.benchmarks):
        job.score_bed(name)
    if recipe.reference is not None:
        job.compare(resolve(recipe.reference))
    return public


class Evaluation:
    """An evaluate recipe with everything it names found and checked."""

    def __init__(self, recipe: EvaluateRecipe, folder: Path, tasks: Sequence[Task], console: Console) -> None:
        trainer = scoring_trainer(**recipe.trainer)
        self.recipe, self.folder, self.tasks, self.console = recipe, folder, tasks, console
        self.is_first, self.barrier = trainer.is_global_zero, trainer.strategy.barrier
        self.dtype = compute_dtype(recipe.model.dtype, trainer.strategy.root_device)
        name = f"{Path(recipe.model.checkpoint).name}-{checkpoint_sha256(folder)[:HASH_LENGTH]}"
        self.place = Path(recipe.out or OUT) / name

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
        is_first = scoring_trainer(**recipe.trainer).is_global_zero

        def say(line: str) -> None:
            if is_first:
                console.print(line, soft_wrap=True, highlight=False)

        tasks = build_tasks(recipe.asked, load_processor(folder), say)
        if recipe.reference is not None:
            check_answers(tasks)
        return cls(recipe, folder, tasks, console)

    def scorer(self, tasks: Sequence[Task], size: int) -> Scorer:
        """Scores tasks in batches of `size`."""
        return Scorer(tasks, size, self.dtype, self.recipe.trainer, say=self.say)

    def say(self, line: str) -> None:
        """Print a line, in the first process."""
        if self.is_first:
            self.console.print(line, soft_wrap=True, highlight=False)

    def score_public(self) -> list[dict[str, Any]]:
        """Contents of scores.json of each benchmark of a public format."""
        tasks = [task for task in self.tasks if isinstance(task, ItemTask)]
        scorer = self.scorer(tasks, self.recipe.batch_size)
        stores = [scorer.store(task, self.folder) for task in tasks]
        found = [self._content(*row) for row in zip(tasks, stores, scorer.score(self.folder, "score"), strict=True)]
        self.barrier()
        return found

    def _content(self, task: ItemTask, store: Store, scores: Scores) -> dict[str, Any]:
        """Write what one benchmark gave below `place`, unless it is there."""
        content = _scores(task, store, scores, self.recipe)
        folder = self.place / store.folder.name
        if (folder / "scores.json").is_file():
            return dict(read_json(folder / "scores.json"))
        if self.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            write_predictions(folder / "predictions.parquet", prediction_rows(task, {"": scores}))
            write_json(folder / "inputs.json", store.inputs)
            if not task.items.scored:
                content["submission"] = _submit(task, scores, folder)
            write_json(folder / "scores.json", content)
        return content

    def report(self, scores: Sequence[dict[str, Any]]) -> None:
        """Tables in the terminal, results.json and results.csv over everything below `out`."""
        if scores:
            write_results(self.place.parent)
            self.console.print(score_table(scores))
            self.console.print(figure_table(scores))
            for row in scores:
                self.told(row)
            self.console.print(f"predictions and scores: [bold]{self.place.parent}[/bold]", soft_wrap=True)

    def told(self, row: dict[str, Any]) -> None:
        """Print what is to be known of a benchmark's data, and where the replies for its server are."""
        for note in row.get("notes", []):
            self.say(f"{row['benchmark']}: {note}")
        if "submission" in row:
            self.say(f"{row['benchmark']} has no answers here and is not scored; for its server: {row['submission']}")

    def score_bed(self, name: str) -> None:
        """Score a test bed's questions with its own pictures or clips and with each control."""
        recipe = self.recipe
        rows: dict[str, dict[str, dict[str, float]]] = {}
        kinds: list[Shown] = ["own", *recipe.controls]
        processor = load_processor(self.folder)
        suites: list[PackedTask] = []
        for kind in kinds:
            suite = build_suite(name, processor, recipe.scores.split, recipe.scores.slice, kind)
            assert suite is not None
            suites.append(suite)
        scores = self.scorer(suites, recipe.scores.batch_size).score(self.folder, "score")
        rows = {kind: own.results for kind, own in zip(kinds, scores, strict=True)}
        if not self.is_first:
            return
        floor = suites[0].chance()
        self.console.print(control_table(rows, floor))
        if recipe.out:
            self.place.mkdir(parents=True, exist_ok=True)
            content = {**rows, "floor": floor, "questions": len(suites[0].rows()), "split": suites[0].split}
            write_json(self.place / f"{name}_{suites[0].split}_{recipe.scores.slice}.json", content)

    def compare(self, dense: Path) -> None:
        """Score the reference too; metrics.json, predictions.parquet and report.html of both in `place`."""
        kinds = (ItemTask, self.recipe.batch_size), (PackedTask, self.recipe.scores.batch_size)
        tasks: list[Task] = []
        before: list[Scores] = []
        after: list[Scores] = []
        for kind, size in kinds:
            own = [task for task in self.tasks if isinstance(task, kind) and task not in tasks]
            scorer = self.scorer(own, size)
            tasks += own
            before += scorer.score(dense, "score reference")
            after += scorer.score(self.folder, "score", dense)
        if not self.is_first:
            return
        rows = [
            row
            for task, d, p in zip(tasks, before, after, strict=True)
            for row in prediction_rows(task, {"dense": d, "pruned": p})
        ]
        metrics = summarise(tasks, before, after)
        self.place.mkdir(parents=True, exist_ok=True)
        write_json(self.place / "metrics.json", metrics)
        write_predictions(self.place / "predictions.parquet", rows)
        names = self.recipe.model.checkpoint, str(self.recipe.reference)
        page = write_quality(self.place / "report.html", f"{names[0]} beside {names[1]}", metrics, rows, tasks)
        show_scores(self.console, metrics)
        self.console.print(f"report: [bold]{escape(str(page))}[/bold]", soft_wrap=True, highlight=False)


def _submit(task: ItemTask, scores: Scores, folder: Path) -> str:
    """Write the replies in the form of the benchmark's server; the file's path."""
    assert task.benchmark.submission is not None  # build_tasks saw to it
    records, asked = scores.records, range(len(task.items))
    replies = [task.answer_of(records[n]) if n in records and not records[n].cut else "" for n in asked]
    name, content = task.benchmark.submission(task.items.items, replies)
    write_bytes(folder / name, content)
    return str(folder / name)


def _scores(task: ItemTask, store: Store, scores: Scores, recipe: EvaluateRecipe) -> dict[str, Any]:
    places = task.items.places
    unread = [
        {"place": places[n], "reason": record.bad} for n, record in scores.records.items() if record.bad is not None
    ]
    results = scores.results.get(task.name, {})
    if not task.items.scored:
        results = {task.benchmark.headline: float("nan"), **results}
    return {
        "benchmark": task.name,
        "about": task.benchmark.about,
        "checkpoint": recipe.model.checkpoint,
        "answers": task.answers,
        "prompt": recipe.prompt,
        "headline": task.benchmark.headline,
        "chance": task.chance()[task.name],
        "results": {k: None if v != v else v for k, v in results.items()},
        "questions": len(task.items),
        "skipped": task.skipped() + unread,
        "notes": list(task.items.notes),
        "seconds": store.seconds,
        "batch_size": recipe.batch_size,
        "inputs": store.inputs,
        **environment(),
    }
