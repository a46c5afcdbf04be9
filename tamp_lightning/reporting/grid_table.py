"""The table of a comparison, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from tamp_lightning.reporting.wording import LABELS


def columns(rows: Sequence[Mapping[str, Any]], reference: str) -> list[str]:
    """Heads of the columns."""
    benchmarks = [LABELS.get(name, name) for name in rows[0]["benchmarks"]]
    figures = ["mean", "retention", "above chance", "KL", f"KL - {reference}'s", "seconds"]
    return ["method", "sparsity", "seeds", *benchmarks, *figures]


def cells(row: Mapping[str, Any]) -> list[str]:
    """One row as text: shares and retention in percent, KL in nats, both with 95 % intervals."""
    paired = row.get("against_reference")
    above = row["corrected_retention"]
    return [
        row["method"],
        f"{100 * row['sparsity']:g} %",
        str(row["seeds"]),
        *(f"{100 * score:.1f}" for score in row["benchmarks"].values()),
        f"{100 * row['balanced_accuracy']:.1f}",
        with_interval(row["retention"], 1),
        "–" if above is None else f"{above['value']:.1f}",
        with_interval(row["kl"], 2),
        with_interval(paired and paired["kl"], 2),
        f"{row['seconds']:.0f}",
    ]


def with_interval(figure: Mapping[str, float | None] | None, digits: int) -> str:
    """`value [low, high]`, with `± standard deviation` over the seeds where there are several; a dash for none."""
    if figure is None:
        return "–"
    return f"{_with_spread(figure, digits)} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"


def _with_spread(figure: Mapping[str, float | None] | None, digits: int) -> str:
    if figure is None:
        return "–"
    spread = figure.get("sd_over_seeds")
    return f"{figure['value']:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def markdown(rows: Sequence[Mapping[str, Any]], reference: str) -> str:
    """The table as Markdown."""
    heads = columns(rows, reference)
    lines = [heads, ["---"] * len(heads), *map(cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def table(rows: Sequence[Mapping[str, Any]], reference: str) -> Table:
    """What fits into 80 columns of a terminal: the rest, intervals above all, is in the Markdown and on the page."""
    view = Table()
    view.add_column("method", no_wrap=True)
    for head in ("sparsity", "retention", "KL", f"KL - {reference}'s", "s"):
        view.add_column(head, justify="right")
    for row in rows:
        paired = row.get("against_reference")
        view.add_row(
            row["method"],
            f"{100 * row['sparsity']:g} %",
            _with_spread(row["retention"], 1),
            _with_spread(row["kl"], 2),
            f"{paired['kl']['value']:+.2f}" if paired and paired["kl"] else "–",
            f"{row['seconds']:.0f}",
        )
    return view
