"""The figures of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from tamp_lightning.metrics.intervals import Interval
from tamp_lightning.reporting.style import ACCENT, INK, MUTED, SERIES, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP"
LONG = 22
"""Characters of a name of which four do not fit beside one another."""


@dataclass(frozen=True)
class Curve:
    """One method: sparsity in [0, 1] and a figure with its interval, for each of its runs."""

    name: str
    points: Sequence[tuple[float, Interval | None]]


def against_sparsity(curves: Sequence[Curve], label: str, style: Style) -> Figure:
    """A line per method through its means; whiskers where a mean is of one run, else its runs as dots."""
    names = [style.label(curve.name) for curve in curves]
    columns = 2 if style.narrow else 2 if max(map(len, names)) > LONG else 4
    lines = max((name.count("\n") + 1 for name in names), default=1)
    figure, axes = style.figure(2.8 + 0.17 * lines * -(-len(names) // columns))
    for number, curve in enumerate(curves):
        _line(axes, curve, style, SERIES[number % len(SERIES)], MARKERS[number // len(SERIES) % len(MARKERS)])
    axes.set_xlabel("sparsity, %")
    axes.set_ylabel(label)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
    figure.legend(loc="outside upper left", ncols=columns, handlelength=1.6, columnspacing=1.4)
    return figure


def _line(axes: Axes, curve: Curve, style: Style, colour: str, marker: str) -> None:
    held: dict[float, list[Interval]] = {}
    for sparsity, interval in sorted(curve.points, key=lambda point: point[0]):
        if interval is not None:
            held.setdefault(round(100 * sparsity, 1), []).append(interval)
    means = [fmean(own.value for own in runs) for runs in held.values()]
    axes.plot(list(held), means, color=colour, marker=marker, markersize=5, label=style.label(curve.name))
    for sparsity, runs in held.items():
        values = [own.value for own in runs]
        if len(runs) == 1:
            reach = [[values[0] - runs[0].low], [runs[0].high - values[0]]]
            axes.errorbar(sparsity, values[0], yerr=reach, color=colour, capsize=2.5, elinewidth=1.0)
        else:
            axes.plot([sparsity] * len(values), values, color=colour, marker=".", markersize=4, linestyle="none")


def ranking(behind: Mapping[str, Interval], label: str, style: Style) -> Figure:
    """Each run's difference to the first with its interval; those that reach 0 are pale."""
    figure, axes = style.figure(0.7 + 0.34 * len(behind))
    for row, (value, low, high) in enumerate(behind.values()):
        reach = [[value - low], [high - value]]
        colour = ACCENT if high < 0 or low > 0 else MUTED
        axes.errorbar(value, row, xerr=reach, fmt="o", markersize=5, capsize=2.5, color=colour)
    axes.axvline(0, color=INK, linestyle=(0, (2, 1.5)), linewidth=1.1)
    axes.set_yticks(range(len(behind)), [style.label(name) for name in behind])
    axes.set_ylim(len(behind) - 0.5, -0.5)
    axes.set_xlabel(style.label(label))
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure
