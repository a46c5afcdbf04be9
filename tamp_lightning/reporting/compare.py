"""Several runs side by side: retention and KL against sparsity, and a ranking with paired intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamp_lightning.metrics.intervals import Interval
from tamp_lightning.reporting.gallery import Picture
from tamp_lightning.reporting.html import embedded, write_page
from tamp_lightning.reporting.run import Run
from tamp_lightning.reporting.scores import Scored, paired, same_questions
from tamp_lightning.reporting.style import ACCENT, INK, MUTED, SERIES, Style
from tamp_lightning.reporting.wording import method_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP"


@dataclass(frozen=True)
class Ranked:
    """One run in the ranking."""

    name: str
    """Unlike that of any other run."""
    run: Run
    scored: Scored
    behind: Interval | None
    """Retention less that of the first, in points, over the same questions; None for the first, or if they differ."""


def rank(runs: Sequence[Run]) -> list[Ranked]:
    """Runs by retention, the largest first.

    Raises:
        ValueError: a run scored nothing, or its dense model scores nothing on some benchmark.
    """
    held = []
    for name, run in zip(names(runs), runs, strict=True):
        if run.scored is None or run.scored.retention is None:
            raise ValueError(f"{run.folder} has no scores to compare: prune it with `--scores.benchmarks=easy_vqa`")
        held.append((run.scored.retention.value, name, run, run.scored))
    held.sort(key=lambda item: -item[0])
    best = held[0][3]

    def behind(scored: Scored) -> Interval | None:
        return None if scored is best or not same_questions(scored, best) else paired(scored, best)

    return [Ranked(name, run, scored, behind(scored)) for _, name, run, scored in held]


def names(runs: Sequence[Run]) -> list[str]:
    """Method and sparsity of every run; of those that agree in both, also the folder."""
    plain = [run.name for run in runs]
    return [n if plain.count(n) == 1 else f"{n} ({r.folder.name})" for n, r in zip(plain, runs, strict=True)]


def write_comparison(folders: Sequence[Path], path: Path) -> Path:
    """Write a page that compares finished runs.

    Raises:
        ValueError: a folder is no run folder, or its run scored nothing.
    """
    ranked = rank([Run.read(folder) for folder in folders])
    splits = {(own.scored.metrics["split"], len(own.scored.rows)) for own in ranked}
    context = {
        "title": f"{len(ranked)} prune runs compared",
        "ranked": ranked,
        "models": sorted({own.run.model for own in ranked}),
        "questions": sorted(splits),
        "paired": all(own.behind is not None for own in ranked[1:]),
        "pictures": embedded(comparison_pictures(ranked)),
    }
    return write_page(path, "comparison.html", context)


def comparison_pictures(ranked: Sequence[Ranked]) -> list[Picture]:
    """The figures of a comparison."""
    found = [
        Picture(
            "retention",
            "Retention against sparsity",
            lambda s: _against_sparsity(ranked, s, _retention, "retention, %"),
        ),
        Picture(
            "kl", "KL to the dense model against sparsity", lambda s: _against_sparsity(ranked, s, _kl, "KL, nats")
        ),
    ]
    if any(own.behind for own in ranked):
        found.append(Picture("ranking", "Retention behind the first run", lambda s: ranking(ranked, s)))
    return found


def _retention(own: Ranked) -> Interval:
    assert own.scored.retention is not None  # rank() saw to it
    return own.scored.retention


def _kl(own: Ranked) -> Interval:
    return Interval(own.scored.kl, own.scored.kl, own.scored.kl)


def _against_sparsity(ranked: Sequence[Ranked], style: Style, value: Any, label: str) -> Figure:
    """One line per method, its runs in the order of their sparsity."""
    figure, axes = style.figure(3.0)
    lines: dict[str, list[Ranked]] = {}
    for own in sorted(ranked, key=lambda own: own.run.run["sparsity"]):
        lines.setdefault(method_name(own.run.recipe["method"]), []).append(own)
    for number, (name, line) in enumerate(lines.items()):
        _line(axes, number, name, [(100 * own.run.run["sparsity"], value(own)) for own in line])
    axes.set_xlabel("sparsity, %")
    axes.set_ylabel(label)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
    figure.legend(loc="outside upper left", ncols=2 if style.narrow else 4, handlelength=1.6, columnspacing=1.4)
    return figure


def _line(axes: Axes, number: int, name: str, points: Sequence[tuple[float, Interval]]) -> None:
    x, y = [at for at, _ in points], [held.value for _, held in points]
    reach = [[held.value - held.low for _, held in points], [held.high - held.value for _, held in points]]
    colour, marker = SERIES[number % len(SERIES)], MARKERS[number // len(SERIES) % len(MARKERS)]
    axes.errorbar(x, y, yerr=reach, color=colour, marker=marker, markersize=5, capsize=2.5, elinewidth=1.0, label=name)


def ranking(ranked: Sequence[Ranked], style: Style) -> Figure:
    """How far each run is behind the first, with paired intervals; those that reach 0 may be as good."""
    shown = [own for own in ranked if own.behind]
    figure, axes = style.figure(0.7 + 0.34 * len(shown))
    for row, own in enumerate(shown):
        assert own.behind is not None
        value, low, high = own.behind
        sure = high < 0
        reach = [[value - low], [high - value]]
        axes.errorbar(value, row, xerr=reach, fmt="o", markersize=5, capsize=2.5, color=ACCENT if sure else MUTED)
    axes.axvline(0, color=INK, linestyle=(0, (2, 1.5)), linewidth=1.1)
    axes.set_yticks(range(len(shown)), [own.name for own in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel(f"points of retention behind {ranked[0].name}")
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure
