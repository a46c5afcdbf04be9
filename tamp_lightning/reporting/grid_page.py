"""The page of a comparison over methods, sparsities and seeds, and its figure for papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tamp_lightning.reporting.gallery import Picture, save_pictures
from tamp_lightning.reporting.grid_figures import bands, by_sparsity, dots
from tamp_lightning.reporting.page import NAME, embedded, write_page

FIGURE = "compare"


def write_grid(
    folder: Path, rows: Sequence[Mapping[str, Any]], reference: str, correlation: float, told: Mapping[str, Any]
) -> Path:
    """Write report.html, and compare.png and compare.svg where methods were run at several sparsities.

    Args:
        folder: of the comparison.
        rows: of a `GridResult`.
        reference: name of the method that others are paired with.
        correlation: Spearman's of KL and retention over all runs.
        told: `model`, `split` and number of `questions`, for the lead.
    """
    sparsities = sorted({float(row["sparsity"]) for row in rows})
    groups = {s: sorted((row for row in rows if row["sparsity"] == s), key=_kl) for s in sparsities}
    pictures = [_dots(f"at-{100 * s:g}".replace(".", "-"), own, reference) for s, own in groups.items()]
    over = [Picture(FIGURE, "Retention and KL against sparsity", lambda s: bands(rows, s))] if by_sparsity(rows) else []
    save_pictures(over, folder)
    shown = embedded([*pictures, *over])
    context = {
        "title": f"{len({row['method'] for row in rows})} methods compared",
        "told": told,
        "groups": [
            (f"{100 * s:g} %", own, shown[picture.name])
            for (s, own), picture in zip(groups.items(), pictures, strict=True)
        ],
        "reference": reference,
        "correlation": correlation,
        "over": shown.get(FIGURE),
        "runs": sum(row["seeds"] for row in rows),
    }
    return write_page(folder / NAME, "grid.html", context)


def _kl(row: Mapping[str, Any]) -> float:
    return float(row["kl"]["value"]) if row["kl"] else -float(row["retention"]["value"])


def _dots(name: str, rows: Sequence[Mapping[str, Any]], reference: str) -> Picture:
    return Picture(name, "Retention and KL of every method", lambda style: dots(rows, reference, style))
