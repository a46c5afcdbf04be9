"""How figures look: one style for paper, the same with CSS variables for colours in a page that has a dark side."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE, ACCENT = "#1d2329", "#67717c", "#d5dae0", "#0b7a75"
SERIES = (ACCENT, "#c2571a", "#5b5bd6", "#b8860b", "#b3386b", "#3d7ea6")
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", **{c: f"--s{k}" for k, c in enumerate(SERIES)}}
"""Colour of a figure -> CSS variable that stands for it in a page."""

WIDE, NARROW = 7.4, 3.6
"""Inches of a figure beside a desktop's text, and on a phone; both with letters of the same size."""

RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.color": RULE,
    "ytick.labelcolor": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "svg.hashsalt": "tamp-lightning",
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Style:
    """What a figure may ask for."""

    width: float = WIDE
    """Inches."""

    @property
    def narrow(self) -> bool:
        """Whether the figure is for a phone."""
        return self.width < 5

    def label(self, text: str) -> str:
        """A name that stands beside an axis, in at most two lines."""
        return fill(text, 20 if self.narrow else 40, max_lines=2, placeholder=" …")

    def figure(self, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
        """A new figure of this width with its axes, apart from pyplot so that no display is needed."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(self.width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, **options)


@contextmanager
def drawing(width: float = WIDE) -> Iterator[Style]:
    """The style of a width, and matplotlib set to it for as long as the context lasts."""
    import matplotlib

    with matplotlib.rc_context(RC):
        yield Style(width)


def bare(axes: Axes) -> None:
    """No ticks and no lines around the plot."""
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def inline_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an SVG element for a page: its colours are CSS variables, its ids start with `name`.

    Args:
        figure: drawn within `drawing`.
        name: unique in the page; letters, digits and dashes.
        label: what it shows, for those who cannot see it; plain text, escaped here.
    """
    from markupsafe import escape

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for colour, variable in VARIABLES.items():
        svg = re.sub(rf"(?<=[:\s\"]){colour}\b", f"var({variable})", svg)
    box = svg[svg.index('viewBox="') :].split('"')[1]
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">{svg[svg.index(">") + 1 :]}'


def save(figure: Figure, folder: Path, name: str) -> None:
    """The figure as NAME.png and NAME.svg in a folder."""
    for kind in ("png", "svg"):
        figure.savefig(folder / f"{name}.{kind}", metadata={"Date": None} if kind == "svg" else None)
