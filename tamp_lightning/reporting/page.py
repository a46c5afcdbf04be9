"""Pages that load nothing from anywhere: templates filled in, figures as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tamp_lightning.files import write_text
from tamp_lightning.reporting.gallery import Picture
from tamp_lightning.reporting.style import NARROW, WIDE, drawing, inline_svg
from tamp_lightning.reporting.wording import benchmark_label, figure, p_value

TEMPLATES = Path(__file__).parent / "templates"
NAME = "report.html"


def write_page(path: Path, template: str, context: dict[str, Any]) -> Path:
    """A template filled in, under its name only when complete; every text in the context is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"benchmark": benchmark_label, "figure": figure, "p": p_value}
    page = environment.get_template(template).render(**context, version=version("tamp-lightning"))
    write_text(path, page)
    return path


def embedded(pictures: Sequence[Picture]) -> dict[str, dict[str, Any]]:
    """Name -> the figure as SVG for a wide and for a narrow page, and `stills` to stand above it, none at first."""
    found: dict[str, dict[str, Any]] = {picture.name: {"stills": []} for picture in pictures}
    for kind, width in (("wide", WIDE), ("narrow", NARROW)):
        with drawing(width) as style:
            for picture in pictures:
                svg = inline_svg(picture.draw(style), f"{picture.name}-{kind}", picture.label)
                found[picture.name][kind] = Markup(svg)
    return found
