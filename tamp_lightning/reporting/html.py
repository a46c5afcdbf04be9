"""report.html: one run as a page of its own that loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tamp_lightning.reporting import story
from tamp_lightning.reporting.advice import advice, again
from tamp_lightning.reporting.gallery import chosen_samples, media_pictures, run_pictures
from tamp_lightning.reporting.page import NAME, embedded, write_page
from tamp_lightning.reporting.quality import is_picture, quality_context
from tamp_lightning.reporting.run import Run
from tamp_lightning.reporting.wording import method_sentence, short


def write_report(folder: Path, path: Path | None = None) -> Path:
    """Write the page of a finished run, and return its path; default: report.html in the run's folder.

    Raises:
        InputError: the folder is no run folder, or a file of it is damaged.
    """
    return write_page(path or folder / NAME, "report.html", report_context(Run.read(folder)))


def report_context(run: Run) -> dict[str, Any]:
    """What the template of a run's report is filled in with."""
    scored = run.scored
    pictures = embedded(run_pictures(run))
    quality = quality_context(scored, run.examples["pictures"]) if scored else {"scored": None}
    kinds = run.plan.kinds
    return {
        "title": story.title(run),
        "verdict": story.verdict(run),
        "sentence": method_sentence(run.recipe["method"]),
        "tiles": story.tiles(run),
        "command": again(run, "again"),
        "details": story.details(run),
        **quality,
        "zeros_sentence": story.zeros(run),
        "budget": [(short(kind, kinds), *rest) for kind, *rest in run.plan.budget()],
        "allocation_sentence": story.allocation(run),
        "token_sentence": story.tokens(run),
        "token_caption": story.token_caption(run),
        "samples": [_sample(sample, pictures) for sample in chosen_samples(run)],
        "pictures": pictures,
        "advice": advice(run),
    }


def _sample(sample: Mapping[str, Any], pictures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A calibration sample with the figures of its media; frames of a video stand above their timeline."""
    shown = []
    for medium, picture in media_pictures(sample):
        stills = [*medium.get("frames", []), *([] if "grids" in medium else [medium.get("picture")])]
        shown.append(
            ({**pictures[picture.name], "stills": [uri for uri in stills if is_picture(uri)]}, story.medium(medium))
        )
    return {"id": sample["id"], "text": sample["text"], "pictures": shown}
