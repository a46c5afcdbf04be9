"""Benchmark scores as a table, as JSON and as CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tamp_lightning.files import atomic_write, write_json

RAW = ("perception", "cognition", "margin")
COLUMNS = ("checkpoint", "benchmark", "answers", "figure", "value", "questions", "skipped")


def shown(figure: str, value: float | None) -> str:
    """A share as percent with one decimal, a score of another scale as it is, a dash where there is none."""
    if value is None:
        return "–"
    raw = figure in RAW or figure.startswith("category/")
    return f"{value:.2f}" if raw else f"{100 * value:.1f} %"


def score_table(scores: Sequence[Mapping[str, Any]]) -> Table:
    """One row per benchmark: the headline, and the share of replies that could not be parsed.

    Args:
        scores: contents of scores.json files.
    """
    table = Table(title=scores[0]["checkpoint"] if scores else None)
    for column in ("benchmark", "answers", "figure", "score", "unparsed", "questions", "skipped"):
        table.add_column(column, justify="left" if column in ("benchmark", "answers", "figure") else "right")
    for row in scores:
        results, headline = row["results"], row["headline"]
        cells = (row["benchmark"], row["answers"], headline, shown(headline, results[headline]))
        unparsed = shown("", results.get("unparsed"))
        table.add_row(*cells, unparsed, str(row["questions"]), str(len(row["skipped"])))
    return table


def figure_table(scores: Sequence[Mapping[str, Any]]) -> Table:
    """All other figures of each benchmark, groups included."""
    table = Table()
    table.add_column("benchmark")
    table.add_column("figure")
    table.add_column("score", justify="right")
    for row in scores:
        others = {k: v for k, v in row["results"].items() if k not in (row["headline"], "unparsed")}
        for number, (name, value) in enumerate(others.items()):
            table.add_row("" if number else row["benchmark"], name, shown(name, value))
        table.add_section()
    return table


def collect(folder: Path) -> list[dict[str, Any]]:
    """Contents of all scores.json files below a folder, in the order of their paths."""
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("scores.json"))]


def write_results(folder: Path) -> None:
    """results.json and results.csv of everything that was scored below a folder; the csv has a line per figure."""
    scores = collect(folder)
    write_json(folder / "results.json", scores)
    with atomic_write(folder / "results.csv") as scratch, scratch.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in scores:
            for figure, value in row["results"].items():
                start = (row["checkpoint"], row["benchmark"], row["answers"])
                writer.writerow([*start, figure, value, row["questions"], len(row["skipped"])])
