"""Scores of a finetuned model beside those it started from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tamp_lightning.evaluation.comparison import Scored, unit_rows
from tamp_lightning.evaluation.scorer import Scorer
from tamp_lightning.evaluation.scoring import Scores
from tamp_lightning.evaluation.summary import change_content, prediction_rows
from tamp_lightning.evaluation.task import Task
from tamp_lightning.metrics import corrected_retention, retention
from tamp_lightning.reporting.page import NAME
from tamp_lightning.reporting.quality import write_quality

DENSE = "dense"
COLUMNS = ("", "_score", "_certainty")


def score_all(folders: Mapping[str, Path | None], scorer: Scorer) -> dict[str, list[Scores]]:
    """Scores of each checkpoint of `folders` (name -> folder, or None for one that is not known), one after another.

    The rest is also compared with the one called `dense`, which has to come first.
    """
    known = {name: folder for name, folder in folders.items() if folder is not None}
    dense = known.get(DENSE)
    return {
        name: scorer.score(folder, f"score {name}", None if name == DENSE else dense) for name, folder in known.items()
    }


def finetuned_rows(tasks: Sequence[Task], found: Mapping[str, Sequence[Scores]]) -> list[dict[str, Any]]:
    """Rows of predictions.parquet: every question with what each model said."""
    return [
        row
        for number, task in enumerate(tasks)
        for row in prediction_rows(task, {name: scores[number] for name, scores in found.items()})
    ]


def summarise_finetuned(tasks: Sequence[Task], found: Mapping[str, Sequence[Scores]]) -> dict[str, Any]:
    """Content of metrics.json; retention and fidelity only where the dense model was scored too.

    `gained` is after less before, per benchmark and over all, with intervals, McNemar's test and a verdict.
    """
    floor = {name: value for task in tasks for name, value in task.chance().items()}
    rows = unit_rows(finetuned_rows(tasks, found), _rules(tasks), list(found))
    asked = {name: [row for row in rows if row["benchmark"] == name] for name in floor}
    floor = {name: value for name, value in floor.items() if asked[name]}
    scores = {model: _headlines(tasks, own, asked, model) for model, own in found.items()}
    content: dict[str, Any] = {
        "split": ", ".join(dict.fromkeys(task.split for task in tasks if task.split)),
        "questions": len(rows),
        "floor": floor,
        "scores": scores,
        "results": {name: _results(own) for name, own in found.items()},
        "gained": _gained(rows, floor),
    }
    if DENSE in scores:
        dense = scores[DENSE]
        seen, above = all(v > 0 for v in dense.values()), all(dense[kind] > floor[kind] for kind in dense)
        sparse = {name: row for name, row in scores.items() if name != DENSE}
        content["retention"] = {name: retention(dense, row) if seen else None for name, row in sparse.items()}
        content["corrected_retention"] = {
            name: corrected_retention(dense, row, floor) if above else None for name, row in sparse.items()
        }
    return content


def _headlines(
    tasks: Sequence[Task], scores: Sequence[Scores], asked: Mapping[str, Sequence[Mapping[str, Any]]], model: str
) -> dict[str, float]:
    known = {k: v for task, own in zip(tasks, scores, strict=True) for k, v in task.headline(own.results).items()}
    means = {name: [row[f"{model}_score"] for row in rows] for name, rows in asked.items() if rows}
    return {name: known.get(name, sum(values) / len(values)) for name, values in means.items()}


def _results(scores: Sequence[Scores]) -> dict[str, dict[str, float | None]]:
    return {
        name: {k: None if v != v else v for k, v in figures.items()}
        for own in scores
        for name, figures in own.results.items()
    }


def as_pairs(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the model before finetuning in the place of the dense one, and that after it as the pruned one."""
    names = {"dense": "before", "pruned": "after"}
    return [
        {**row, **{f"{place}{column}": row[f"{own}{column}"] for place, own in names.items() for column in COLUMNS}}
        for row in rows
    ]


def write_finetuned(
    out: Path, title: str, tasks: Sequence[Task], rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]
) -> Path:
    """report.html: what finetuning changed, beside the scores before it."""
    benchmarks = {name: {"floor": value, "units": _rules(tasks)[name]} for name, value in metrics["floor"].items()}
    content = {"benchmarks": benchmarks, "fidelity": None}
    return write_quality(out / NAME, title, content, as_pairs(rows), tasks, ("before", "after"))


def _rules(tasks: Sequence[Task]) -> dict[str, str]:
    return {name: task.rules().get(name, "each") for task in tasks for name in task.chance()}


def _gained(rows: Sequence[Mapping[str, Any]], floor: Mapping[str, float]) -> dict[str, Any]:
    benchmarks = {name: {"floor": value} for name, value in floor.items()}
    scored = Scored({"benchmarks": benchmarks, "fidelity": None}, as_pairs(rows))
    found: dict[str, Any] = {"benchmarks": {}}
    for own in scored.benchmarks:
        held = {"change": change_content(own.change), "mcnemar": own.mcnemar, "verdict": own.verdict}
        found["benchmarks"][own.name] = held
    change = change_content(scored.change)
    return found | {"change": change, "mcnemar": scored.mcnemar, "verdict": scored.verdict}
