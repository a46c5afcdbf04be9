"""The figures of one run. Each takes the data and a `Style`, and gives a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tamp_lightning.reporting.plan import Plan
from tamp_lightning.reporting.scores import BenchmarkScores
from tamp_lightning.reporting.style import ACCENT, INK, MUTED, RULE, SERIES, Style, bare
from tamp_lightning.reporting.wording import benchmark_label, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

FAINTEST, STRONGEST = 0.06, 1.0


def shades() -> Colormap:
    """From nearly transparent to the accent colour, so that it reads on any background."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    ends = [(*to_rgb(ACCENT), FAINTEST), (*to_rgb(ACCENT), STRONGEST)]
    return LinearSegmentedColormap.from_list("shades", ends)


def benchmark_bars(
    scores: Sequence[BenchmarkScores], style: Style, sides: Sequence[str] = ("dense", "pruned")
) -> Figure:
    """Dense beside pruned with 95 % intervals, chance as a line across both."""
    height = 0.9 + 0.74 * len(scores)
    figure, axes = style.figure(height)
    for row, own in enumerate(scores):
        for side, (offset, interval, colour) in enumerate(((-0.19, own.dense, MUTED), (0.19, own.pruned, ACCENT))):
            value, low, high = (100 * part for part in interval)
            label = sides[side] if row == 0 else None
            axes.barh(row + offset, value, 0.34, color=colour, alpha=0.45 if side == 0 else 1.0, label=label)
            reach = [[max(value - low, 0)], [max(high - value, 0)]]
            if low != low:  # all questions are about one picture
                continue
            axes.errorbar(value, row + offset, xerr=reach, color=INK, capsize=2.5, linewidth=1.1, fmt="none")
        floor = "chance" if row == 0 else None
        axes.plot([100 * own.floor] * 2, [row - 0.43, row + 0.43], color=INK, linestyle=(0, (2, 1.5)), label=floor)
    axes.set_yticks(range(len(scores)), [style.label(benchmark_label(own.name)) for own in scores])
    axes.set_ylim(len(scores) - 0.45, -0.55)
    axes.set_xlim(0, 102)
    axes.set_xlabel("score, %")
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    handles, labels = axes.get_legend_handles_labels()
    ordered = sorted(zip(labels, handles, strict=True), key=lambda pair: (*sides, "chance").index(pair[0]))
    names, drawn = zip(*ordered, strict=True)
    figure.legend(drawn, names, loc="outside upper left", ncols=3, handlelength=1.4, columnspacing=1.4)
    return figure


def sparsity_map(plan: Plan, style: Style) -> Figure:
    """Sparsity of every linear: kinds of linears down, blocks across."""
    import numpy as np

    cells = np.array([[np.nan if v is None else 100 * v for v in row] for row in plan.cells()])
    low, high = float(np.nanmin(cells)), float(np.nanmax(cells))
    low, high = (low, high) if high - low >= 1 else (max(low - 5, 0), min(high + 5, 100))
    figure, axes = style.figure(0.85 + 0.26 * len(plan.kinds))
    edges = {"edgecolors": "face", "linewidth": 0.2, "rasterized": cells.size > 3000}
    mesh = axes.pcolormesh(np.ma.masked_invalid(cells), cmap=shades(), vmin=low, vmax=high, **edges)
    bare(axes)
    axes.invert_yaxis()
    axes.set_yticks(
        [k + 0.5 for k in range(len(plan.kinds))], [style.label(short(kind, plan.kinds)) for kind in plan.kinds]
    )
    _block_ticks(axes, plan.blocks, 0.5)
    bar = figure.colorbar(mesh, ax=axes, location="right", aspect=14, pad=0.02, fraction=0.05)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=MUTED)
    bar.ax.set_title("%", color=MUTED, loc="center")
    return figure


def _block_ticks(axes: Axes, blocks: Sequence[int], offset: float = 0.0) -> None:
    """About eight block numbers below; blocks are counted from 1, as the progress bar does."""
    step = max(1, round(len(blocks) / 7))
    places = range(0, len(blocks), step)
    axes.set_xticks([k + offset for k in places], [str(blocks[k] + 1) for k in places])
    axes.set_xlabel("decoder block")


def budget_bars(plan: Plan, style: Style) -> Figure:
    """Per kind of linear: share of all prunable weights, and of those that were kept."""
    budget = plan.budget()
    figure, axes = style.figure(0.85 + 0.36 * len(budget))
    for row, (_, size, kept, _) in enumerate(budget):
        first = row == 0
        axes.barh(row - 0.17, 100 * size, 0.3, color=MUTED, alpha=0.45, label="of all weights" if first else None)
        axes.barh(row + 0.17, 100 * kept, 0.3, color=ACCENT, label="of the weights kept" if first else None)
    axes.set_yticks(range(len(budget)), [style.label(short(kind, plan.kinds)) for kind, *_ in budget])
    axes.set_ylim(len(budget) - 0.5, -0.5)
    axes.set_xlabel("share, %")
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.4)
    return figure


def depth_lines(
    series: Mapping[str, Sequence[float | None]], blocks: Sequence[int], label: str, style: Style
) -> Figure:
    """One line per name against depth.

    Args:
        series: name -> value per block, None where there is none.
        blocks: numbers of the blocks.
        label: what is drawn, for the axis.
    """
    figure, axes = style.figure(2.7 if style.narrow else 2.6)
    for number, (name, values) in enumerate(series.items()):
        drawn = [float("nan") if value is None else value for value in values]
        dash = "-" if number < len(SERIES) else "--"
        marker = "o" if len(blocks) < 4 else None
        axes.plot(drawn, color=SERIES[number % len(SERIES)], linestyle=dash, marker=marker, markersize=3, label=name)
    _block_ticks(axes, blocks)
    axes.set_ylabel(label)
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.02)
    if len(series) > 1:
        figure.legend(loc="outside upper left", ncols=2 if style.narrow else 4, handlelength=1.4, columnspacing=1.4)
    return figure


def token_areas(
    shares: Mapping[str, Sequence[float]], blocks: Sequence[int], offered: Mapping[str, float], style: Style
) -> Figure:
    """Share of each modality among the tokens that counted against depth; left of it, among all tokens.

    Args:
        shares: modality -> share per block.
        blocks: numbers of the blocks.
        offered: modality -> share among all calibration tokens; empty if it is not known.
    """
    figure, axes = style.figure(2.6)
    names = list(shares)
    places = range(len(blocks))
    bottom = [0.0] * len(blocks)
    base = 0.0
    gap = max(0.05 * len(blocks), 0.6)
    for number, name in enumerate(names):
        colour = SERIES[number]
        top = [low + 100 * share for low, share in zip(bottom, shares[name], strict=True)]
        axes.fill_between(places, bottom, top, color=colour, alpha=0.8, linewidth=0, step="mid", label=name)
        if offered:
            axes.bar(-2 * gap, 100 * offered[name], 1.6 * gap, bottom=base, color=colour, alpha=0.8)
            base += 100 * offered[name]
        bottom = top
    _block_ticks(axes, blocks)
    if offered:
        ticks, labels = [*axes.get_xticks()], [label.get_text() for label in axes.get_xticklabels()]
        axes.set_xticks([-2 * gap, *ticks], ["all", *labels])
    axes.set_ylabel("share of tokens, %")
    axes.set_ylim(0, 100)
    bare(axes)
    figure.legend(loc="outside upper left", ncols=4, handlelength=1.0, columnspacing=1.4)
    return figure


def token_overlay(medium: Mapping[str, Any], picture: Any, panels: Mapping[str, Any], style: Style) -> Figure:
    """A picture as each of some blocks weighs it: the stronger the colour of a patch, the more linears chose its token.

    Args:
        medium: its `grids`, in the order of its tokens.
        picture: uint8 [height, width, 3].
        panels: title -> share of the linears that chose each of the picture's tokens, [tokens].
    """
    import numpy as np

    grids, aspect = medium["grids"], picture.shape[0] / picture.shape[1]
    rows, columns = (len(grids), len(panels)) if style.narrow else (1, len(grids) * len(panels))
    side = (style.width - 0.3 * columns / len(panels)) / columns - 0.08
    height = rows * (side * aspect + 0.26)
    figure, axes = style.figure(height, rows, columns, squeeze=False)
    pale, own, start = picture // 3 * 2 + 85, iter(axes.flat), 0
    for grid in grids:
        across = grid["columns"] + grid["newline"]
        for title, shares in panels.items():
            chosen = np.asarray(shares[start : start + grid["rows"] * across]).reshape(grid["rows"], across)
            _patches(axis := next(own), pale, grid, chosen[:, : grid["columns"]], aspect)
            axis.set_title(title, color=INK, pad=3)
            if title == next(iter(panels)):
                axis.set_ylabel(f"{grid['name']} {grid['rows']}×{grid['columns']}", color=MUTED)
        start += grid["rows"] * across
    return figure


def _patches(axes: Axes, picture: Any, grid: Mapping[str, Any], chosen: Any, aspect: float) -> None:
    """A picture below its patches, coloured by how much they were chosen [rows, columns]."""
    import numpy as np
    from matplotlib.colors import to_rgb

    axes.imshow(picture, extent=(0, 1, 1, 0), interpolation="nearest")
    colour = np.empty((*chosen.shape, 4))
    colour[..., :3], colour[..., 3] = to_rgb(SERIES[1]), np.where(chosen > 0, 0.15 + 0.75 * chosen, 0)
    box = (grid["left"], grid["right"], grid["bottom"], grid["top"])
    axes.imshow(colour, extent=box, interpolation="nearest")
    if chosen.size <= 256:
        rows, columns = chosen.shape
        axes.hlines(np.linspace(box[3], box[2], rows + 1), 0, 1, color=INK, alpha=0.12, linewidth=0.5)
        axes.vlines(np.linspace(box[0], box[1], columns + 1), 0, 1, color=INK, alpha=0.12, linewidth=0.5)
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect=aspect)
    bare(axes)


def token_strips(panels: Mapping[str, Sequence[float]], label: str, ends: tuple[str, str], style: Style) -> Figure:
    """Share of the linears that chose a medium's tokens, in the order of the tokens: a strip per block.

    Args:
        panels: title -> share of the linears that chose each token.
        label: what runs from left to right.
        ends: words at both ends of it.
    """
    import numpy as np

    count = len(next(iter(panels.values())))
    bins = min(count, 48)
    rows = np.array([[part.mean() for part in np.array_split(np.asarray(own), bins)] for own in panels.values()])
    figure, axes = style.figure(0.75 + 0.34 * len(panels))
    mesh = axes.pcolormesh(
        np.linspace(0, 1, bins + 1), range(len(panels) + 1), 100 * rows, cmap=shades(), vmin=0, vmax=100
    )
    axes.hlines(range(1, len(panels)), 0, 1, color=RULE, linewidth=0.7)
    bare(axes)
    axes.invert_yaxis()
    axes.set_yticks([k + 0.5 for k in range(len(panels))], list(panels))
    axes.set_xticks([0, 1], ends)
    for text, side in zip(axes.get_xticklabels(), ("left", "right"), strict=True):
        text.set_ha(side)
    axes.set_xlabel(label)
    bar = figure.colorbar(mesh, ax=axes, location="right", aspect=10, pad=0.02, fraction=0.05, ticks=[0, 100])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=MUTED)
    bar.ax.set_title("%", color=MUTED, loc="center")
    return figure
