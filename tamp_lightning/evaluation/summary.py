"""metrics.json and predictions.parquet: what models said to the same questions, and what that shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tamp_lightning.evaluation.comparison import NAN, Scored
from tamp_lightning.evaluation.scoring import Scores
from tamp_lightning.evaluation.task import Task
from tamp_lightning.files import atomic_write
from tamp_lightning.metrics import corrected_retention, flips, retention
from tamp_lightning.metrics.fidelity import means


def prediction_rows(task: Task, models: Mapping[str, Scores]) -> list[dict[str, Any]]:
    """One row per question: what was asked, the right answer, and what each model said.

    Of a model called M: `M` (its reply), `M_score` in [0, 1], None where the question was not asked, `M_certainty` (the
    right answer's probability among those that are allowed, if answers are read from probabilities) and `M_kl` (to the
    dense model in nats, mean over the answer's tokens). Those of a model without a name are `reply`, `score` and so
    on, and the pruned one's KL is `kl`. `bad` says why a question was not asked.
    """
    return [
        {**row, **_said(row["benchmark"], position, models)} for position, row in enumerate(task.rows())
    ]  # fmt: skip


def _said(benchmark: str, position: int, models: Mapping[str, Scores]) -> dict[str, Any]:
    found: dict[str, Any] = {"bad": None}
    for name, scores in models.items():
        record, values = scores.records.get(position), scores.values.get(benchmark)
        value = values[position] if values else NAN
        start = f"{name}_" if name else ""
        found |= {
            name or "reply": record.reply if record else None,
            f"{start}score": None if value != value else value,
            f"{start}certainty": record.certainty if record else None,
            "kl" if name == "pruned" else f"{start}kl": record.kl if record else None,
        }
        if record and record.nll:
            found[f"{start}nll"] = list(record.nll)
        if record and record.cut:
            found[f"{start}cut"] = True
        if record and record.bad:
            found["bad"] = record.bad
    return found


def write_predictions(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """predictions.parquet, under its name only when complete; what a row lacks is null."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_write(path) as scratch:
        pq.write_table(pa.Table.from_pylist([{key: row.get(key) for key in keys} for row in rows]), scratch)


def summarise(tasks: Sequence[Task], dense: Sequence[Scores], pruned: Sequence[Scores]) -> dict[str, Any]:
    """Content of metrics.json: per benchmark and over all of them, dense beside pruned.

    Retention is None where the dense model scores nothing on some benchmark, corrected retention where it is not above
    chance, fidelity where replies were generated and no token was compared.

    Args:
        tasks: what was asked.
        dense: scores of the dense model on each.
        pruned: of the pruned one.
    """
    benchmarks = {name: row for task, d, p in zip(tasks, dense, pruned, strict=True) for name, row in _two(task, d, p)}
    rows = [
        row
        for task, d, p in zip(tasks, dense, pruned, strict=True)
        for row in prediction_rows(task, {"dense": d, "pruned": p})
    ]
    scored = Scored({"benchmarks": benchmarks, "fidelity": None}, rows)
    for own in scored.benchmarks:
        benchmarks[own.name] |= {
            "dense": benchmarks[own.name].get("dense", own.dense.value),
            "pruned": benchmarks[own.name].get("pruned", own.pruned.value),
            "questions": own.questions,
            "change": change_content(own.change),
            "mcnemar": own.mcnemar,
            "verdict": own.verdict,
        }
    benchmarks = {name: row for name, row in benchmarks.items() if "questions" in row}
    before, after, floor = ({k: row[c] for k, row in benchmarks.items()} for c in ("dense", "pruned", "floor"))
    both = [[row[f"{side}_score"] for row in scored.rows] for side in ("dense", "pruned")]
    return {
        "split": ", ".join(dict.fromkeys(task.split for task in tasks if task.split)),
        "questions": len(scored.rows),
        "benchmarks": benchmarks,
        "retention": retention(before, after) if all(v > 0 for v in before.values()) else None,
        "corrected_retention": corrected_retention(before, after, floor)
        if all(before[k] > floor[k] for k in before)
        else None,
        "flips": flips(*both),
        "change": change_content(scored.change),
        "mcnemar": scored.mcnemar,
        "verdict": scored.verdict,
        "fidelity": fidelity(pruned),
        "dense": _results(dense),
        "pruned": _results(pruned),
    }


def _two(task: Task, dense: Scores, pruned: Scores) -> Iterable[tuple[str, dict[str, Any]]]:
    before, after, rules = task.headline(dense.results), task.headline(pruned.results), task.rules()
    for name, floor in task.chance().items():
        row: dict[str, Any] = {"floor": floor, "units": rules.get(name, "each")}
        if name in before and not (before[name] != before[name] or after[name] != after[name]):
            row |= {"dense": before[name], "pruned": after[name]}
        yield name, row


def fidelity(scores: Sequence[Scores]) -> dict[str, float] | None:
    """Distance to the dense model over all answer tokens that were compared."""
    sums = [record.fidelity for own in scores for record in own.records.values() if record.fidelity]
    return means([sum(column) for column in zip(*sums, strict=True)]) if sums else None


def _results(scores: Sequence[Scores]) -> dict[str, dict[str, float | None]]:
    rows = {name: figures for own in scores for name, figures in own.results.items()}
    if (whole := fidelity(scores)) is not None:
        rows = {**{k: v for k, v in rows.items() if k != "fidelity"}, "fidelity": whole}
    return {name: {k: None if v != v else v for k, v in figures.items()} for name, figures in rows.items()}


def change_content(change: Any) -> dict[str, float | None]:
    """A paired difference as JSON: in shares, with its 95 % interval and the p of a t-test clustered by picture."""
    held = {"value": change.mean, "low": change.low, "high": change.high, "p": change.p}
    return {name: None if value != value else value for name, value in held.items()}
