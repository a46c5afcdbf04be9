"""The page of several runs, whether a grid of methods, sparsities and seeds or any that were finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tamp_lightning.reporting.gallery import Picture, save_pictures
from tamp_lightning.reporting.grid import GridResult
from tamp_lightning.reporting.grid_figures import Row, bands, by_sparsity, dots
from tamp_lightning.reporting.page import NAME, embedded, write_page

FIGURE = "compare"
RANKING = "ranking"


def write_grid(folder: Path, rows: Sequence[Row], reference: str, correlation: float, told: Mapping[str, Any]) -> Path:
    """Write report.html, and compare.png and compare.svg where methods were run at several sparsities.

    Args:
        folder: of the comparison.
        rows: of a `GridResult` with a reference, in its order.
        reference: name of the method that others are paired with.
        correlation: Spearman's of KL and retention over all runs.
        told: `model`, `split` and number of `questions`.
    """
    save_pictures([picture for picture in pictures(rows, reference) if picture.name == FIGURE], folder)
    asked = [(told["split"], told["questions"])]
    return _write(folder / NAME, rows, reference, correlation, {"model": told["model"], "asked": asked})


def write_ranking(path: Path, result: GridResult) -> Path:
    """Write the page of runs without a reference method: all are paired with the first of the ranking.

    Args:
        path: the page.
        result: of the runs.
    """
    runs = [run for group in result.groups for run in group.runs]
    asked = {((own.runs[0].metrics or {})["split"], len(own.scored.rows)) for own in result.groups}
    told = {
        "model": ", ".join(sorted({run.model for run in runs})),
        "asked": sorted(asked),
        "folders": [(group.name, run.folder) for group in result.groups for run in group.runs],
        "paired": result.is_paired,
    }
    return _write(path, result.rows(), None, result.rank_correlation(), told)


def _write(path: Path, rows: Sequence[Row], reference: str | None, correlation: float, told: Mapping[str, Any]) -> Path:
    shown = embedded(pictures(rows, reference))
    sections = [
        {"id": name, "at": at, "rows": own, "picture": shown[name], "against": reference or own[0]["name"]}
        for name, at, own in _sections(rows, reference)
    ]
    methods = len({row["method"] for row in rows})
    context = {
        "title": f"{methods} methods compared" if reference else f"{sum(r['seeds'] for r in rows)} prune runs compared",
        "told": {"folders": [], "paired": True, **told},
        "sections": sections,
        "over": shown.get(FIGURE),
        "correlation": correlation,
        "runs": sum(row["seeds"] for row in rows),
    }
    return write_page(path, "comparison.html", context)


def _sections(rows: Sequence[Row], reference: str | None) -> list[tuple[str, str, Sequence[Row]]]:
    """Id, sparsity and rows, in their order, of every table: one per sparsity, or one over all without a reference."""
    if reference is None:
        return [(RANKING, "", rows)]
    found: dict[float, list[Row]] = {}
    for row in rows:
        found.setdefault(row["sparsity"], []).append(row)
    return [(f"at-{100 * s:g}".replace(".", "-"), f"{100 * s:g} %", own) for s, own in found.items()]


def pictures(rows: Sequence[Row], reference: str | None) -> list[Picture]:
    """The figures: one per table, and one against sparsity if a method has several."""
    label = "method" if reference else "name"
    found = [_dots(name, own, label, reference or own[0]["name"]) for name, _, own in _sections(rows, reference)]
    if by_sparsity(rows):
        found.append(Picture(FIGURE, "Retention and KL against sparsity", lambda style: bands(rows, style)))
    return found


def _dots(name: str, rows: Sequence[Row], label: str, reference: str) -> Picture:
    return Picture(name, "Retention and KL of every run", lambda style: dots(rows, label, reference, style))
