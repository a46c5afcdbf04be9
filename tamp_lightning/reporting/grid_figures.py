"""The figures of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tamp_lightning.reporting.style import ACCENT, INK, MUTED, SERIES, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
MARKERS = "osD^vP"
FACTOR = 5
"""Methods whose KL differs by more than this are drawn over its logarithm."""
FIGURES = {"retention": "retention, %", "kl": "KL, nats"}


def drawn(rows: Sequence[Row]) -> dict[str, str]:
    """The figures that the rows have: KL is lacking where replies were generated."""
    return {key: label for key, label in FIGURES.items() if all(row[key] for row in rows)}


def by_sparsity(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Methods that were run at several sparsities, with their rows, the sparsest last."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: float(row["sparsity"])):
        found.setdefault(str(row["method"]), []).append(row)
    return {name: own for name, own in found.items() if len(own) > 1}


def bands(rows: Sequence[Row], style: Style) -> Figure:
    """Retention and KL against sparsity, a line per method with its 95 % band."""
    lines = by_sparsity(rows)
    columns = 2 if style.narrow else 4
    depth = 0.2 * -(-len(lines) // columns)
    height = (5.2 if style.narrow else 3.2) + depth
    shown = drawn(rows)
    figure, panels = style.figure(height, *((len(shown), 1) if style.narrow else (1, len(shown))), squeeze=False)
    panels = panels.flatten()
    for axes, (key, label) in zip(panels, shown.items(), strict=True):
        for number, (name, own) in enumerate(lines.items()):
            colour, marker = SERIES[number % len(SERIES)], MARKERS[number // len(SERIES) % len(MARKERS)]
            at = [100 * row["sparsity"] for row in own]
            means, lows, highs = ([row[key][end] for row in own] for end in ("value", "low", "high"))
            axes.plot(at, means, color=colour, marker=marker, markersize=4, linewidth=1.3, label=name)
            axes.fill_between(at, lows, highs, color=colour, alpha=0.12, linewidth=0)
        axes.set_xticks(sorted({100 * row["sparsity"] for own in lines.values() for row in own}))
        axes.set_xlabel("sparsity, %")
        axes.set_ylabel(label)
        held = [row[key] for own in lines.values() for row in own]
        if key == "kl" and max(f["value"] for f in held) > FACTOR * min(f["low"] for f in held) > 0:
            axes.set_yscale("log", subs=[])
            axes.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
            axes.yaxis.set_major_formatter("{x:g}")
        else:
            axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=columns, handlelength=1.6, columnspacing=1.2)
    return figure


def dots(rows: Sequence[Row], label: str, reference: str, style: Style) -> Figure:
    """Retention and KL of every row with 95 % intervals; those of the reference also as a dashed line.

    Args:
        rows: from top to bottom.
        label: what rows are called by: method, or, where they have several sparsities, name.
        reference: label of the row that others are paired with.
        style: how figures look.
    """
    shown = drawn(rows)
    figure, panels = style.figure(0.7 + 0.25 * len(rows), 1, len(shown), sharey=True, squeeze=False)
    panels = panels.flatten()
    for axes, (key, head) in zip(panels, shown.items(), strict=True):
        for place, row in enumerate(rows):
            _dot(axes, row[key], place, MUTED if row[label] == reference else ACCENT)
        own = next((row[key]["value"] for row in rows if row[label] == reference), None)
        if own is not None:
            axes.axvline(own, color=INK, linestyle=(0, (2, 1.5)), linewidth=1.0)
        axes.set_xlim(left=min(0, axes.get_xlim()[0]))
        axes.set_xlabel(head)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(rows)), [style.label(str(row[label])) for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def _dot(axes: Axes, figure: Mapping[str, float], place: int, colour: str) -> None:
    value = figure["value"]
    reach = [[value - figure["low"]], [figure["high"] - value]]
    axes.errorbar(value, place, xerr=reach, fmt="o", markersize=4.5, capsize=2.5, color=colour)
