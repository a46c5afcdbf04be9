"""What an evaluation leaves of each benchmark of a public format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tamp_lightning.checkpoint.reader import read_json
from tamp_lightning.config.recipe import EvaluateRecipe
from tamp_lightning.evaluation.items import ItemTask
from tamp_lightning.evaluation.scoring import Scores
from tamp_lightning.evaluation.store import Store
from tamp_lightning.evaluation.summary import prediction_rows, write_predictions
from tamp_lightning.files import write_bytes, write_json
from tamp_lightning.runs.environment import environment
from tamp_lightning.tasks.evaluate_setup import Evaluation


def write_scores(job: Evaluation, task: ItemTask, store: Store, scores: Scores) -> dict[str, Any]:
    """Write what one benchmark gave below the evaluation's place, unless it is there; content of scores.json."""
    content = _content(task, store, scores, job.recipe)
    folder = job.place / store.folder.name
    if (folder / "scores.json").is_file():
        return dict(read_json(folder / "scores.json"))
    if job.is_first:
        folder.mkdir(parents=True, exist_ok=True)
        write_predictions(folder / "predictions.parquet", prediction_rows(task, {"": scores}))
        write_json(folder / "inputs.json", store.inputs)
        if not task.items.scored:
            content["submission"] = _submit(task, scores, folder)
        write_json(folder / "scores.json", content)
    return content


def _submit(task: ItemTask, scores: Scores, folder: Path) -> str:
    """Write the replies in the form of the benchmark's server; the file's path."""
    assert task.benchmark.submission is not None  # build_tasks saw to it
    records, asked = scores.records, range(len(task.items))
    replies = [task.answer_of(records[n]) if n in records and not records[n].cut else "" for n in asked]
    name, content = task.benchmark.submission(task.items.items, replies)
    write_bytes(folder / name, content)
    return str(folder / name)


def _content(task: ItemTask, store: Store, scores: Scores, recipe: EvaluateRecipe) -> dict[str, Any]:
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
