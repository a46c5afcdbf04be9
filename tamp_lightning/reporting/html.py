"""report.html: one run as a page of its own that loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tamp_lightning.files import write_text
from tamp_lightning.reporting import story
from tamp_lightning.reporting.advice import advice, again
from tamp_lightning.reporting.examples import worst_flips
from tamp_lightning.reporting.gallery import Picture, chosen_samples, media_pictures, run_pictures
from tamp_lightning.reporting.run import Run
from tamp_lightning.reporting.style import NARROW, WIDE, drawing, inline_svg
from tamp_lightning.reporting.wording import benchmark_label, figure, method_sentence, short

TEMPLATES = Path(__file__).parent / "templates"
NAME = "report.html"


def write_report(folder: Path, path: Path | None = None) -> Path:
    """Write the page of a finished run, and return its path; default: report.html in the run's folder.

    Raises:
        InputError: the folder is no run folder, or a file of it is damaged.
    """
    return write_page(path or folder / NAME, "report.html", report_context(Run.read(folder)))


def write_page(path: Path, template: str, context: dict[str, Any]) -> Path:
    """A template filled in, under its name only when complete; every text in the context is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"benchmark": benchmark_label, "figure": figure}
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


def report_context(run: Run) -> dict[str, Any]:
    """What the template of a run's report is filled in with."""
    pictures = embedded(run_pictures(run))
    kinds = run.plan.kinds
    return {
        "title": story.title(run),
        "verdict": story.verdict(run),
        "sentence": method_sentence(run.recipe["method"]),
        "tiles": story.tiles(run),
        "command": again(run, "again"),
        "details": story.details(run),
        "scored": run.scored,
        "fidelity": story.fidelity(run),
        "flips": [_flip(run, row) for row in worst_flips(run.rows)],
        "flip_sentence": story.flips(run),
        "zeros_sentence": story.zeros(run),
        "budget": [(short(kind, kinds), *rest) for kind, *rest in run.plan.budget()],
        "allocation_sentence": story.allocation(run),
        "token_sentence": story.tokens(run),
        "token_caption": story.token_caption(run),
        "samples": [_sample(sample, pictures) for sample in chosen_samples(run)],
        "pictures": pictures,
        "advice": advice(run),
    }


def _flip(run: Run, row: Mapping[str, Any]) -> dict[str, Any]:
    """A flipped question with its picture, if the run kept it, and how sure both models were of the right answer."""
    before, after = row.get("dense_certainty"), row.get("pruned_certainty")
    certainty = None if before is None or after is None else f"{100 * before:.0f} % → {100 * after:.0f} %"
    held = run.examples["pictures"].get(str(row["picture"]))
    return {**row, "uri": held if _is_picture(held) else None, "certainty": certainty}


def _is_picture(uri: object) -> bool:
    """Whether a page may show it: pictures are part of the page, nothing is fetched."""
    return isinstance(uri, str) and uri.startswith("data:image/")


def _sample(sample: Mapping[str, Any], pictures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A calibration sample with the figures of its media; frames of a video stand above their timeline."""
    shown = []
    for medium, picture in media_pictures(sample):
        stills = [*medium.get("frames", []), *([] if "grids" in medium else [medium.get("picture")])]
        shown.append(
            ({**pictures[picture.name], "stills": [uri for uri in stills if _is_picture(uri)]}, story.medium(medium))
        )
    return {"id": sample["id"], "text": sample["text"], "pictures": shown}
