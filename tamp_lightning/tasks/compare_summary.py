"""What the cells of a comparison show together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tamp_lightning.files import write_json, write_text
from tamp_lightning.reporting.grid import GridResult, Group
from tamp_lightning.reporting.grid_page import write_grid
from tamp_lightning.reporting.grid_table import markdown, table
from tamp_lightning.reporting.run import Run
from tamp_lightning.runs.environment import environment
from tamp_lightning.tasks.compare_cells import Cell


def summarise(cells: Sequence[Cell], reference: str, out: Path, console: Console) -> None:
    """Write compare.json, compare.md and report.html over finished cells, and print the table."""
    runs: dict[tuple[str, float, str | None], list[Run]] = {}
    for cell in cells:
        runs.setdefault((cell.method, cell.sparsity, cell.source), []).append(Run.read(cell.folder.path))
    result = GridResult([Group(method, at, own, source) for (method, at, source), own in runs.items()], reference)
    rows = result.rows()
    correlation = result.rank_correlation()
    content = {"reference": reference, "runs": sum(map(len, runs.values())), "spearman_kl_retention": correlation}
    content["rows"] = rows
    write_json(out / "compare.json", content | environment())
    write_text(out / "compare.md", markdown(rows, reference))
    first = next(iter(runs.values()))[0]
    metrics = first.metrics or {}
    told = {"model": first.model, "split": metrics["split"], "questions": metrics["questions"]}
    page = write_grid(out, rows, reference, correlation, told)
    console.print(table(rows, reference))
    console.print(f"report: [bold]{escape(str(page))}[/bold]", soft_wrap=True, highlight=False)
