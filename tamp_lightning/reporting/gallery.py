"""Which figures a run has, under which name, and what each shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamp_lightning.evaluation.comparison import Scored
from tamp_lightning.reporting import figures
from tamp_lightning.reporting.run import Run
from tamp_lightning.reporting.style import Style, drawing, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """One figure: its name in the page and as a file, what it shows in a sentence, how it is drawn."""

    name: str
    label: str
    draw: Callable[[Style], Figure]


def score_picture(scored: Scored, sides: Sequence[str] = ("dense", "pruned")) -> Picture:
    """The figure of two models' scores."""
    label = f"Scores of the {sides[0]} and the {sides[1]} model"
    return Picture("benchmarks", label, lambda s: figures.benchmark_bars(scored.benchmarks, s, sides))


def run_pictures(run: Run) -> list[Picture]:
    """The figures of a run, those left out for which it has no data."""
    plan, scored = run.plan, run.scored
    found = [
        Picture("sparsity", "Sparsity of every linear by block", lambda s: figures.sparsity_map(plan, s)),
        Picture("budget", "Share of the weights by kind of linear", lambda s: figures.budget_bars(plan, s)),
    ]
    if scored:
        found.insert(0, score_picture(scored))
    if diversity := plan.diversity():
        lines = lambda s: figures.depth_lines(diversity, plan.blocks, "1 − mean cosine", s)  # noqa: E731
        found.append(Picture("diversity", "Diversity of tokens within and across modalities by block", lines))
    elif scores := plan.scores():
        named = {"score": scores}
        lines = lambda s: figures.depth_lines(named, plan.blocks, "score", s)  # noqa: E731
        found.append(Picture("scores", "What the allocation measured, by block", lines))
    if shares := plan.token_shares():
        areas = lambda s: figures.token_areas(shares, plan.blocks, offered(run), s)  # noqa: E731
        found.append(Picture("token-share", "Share of each modality among the tokens that counted", areas))
    return found + [picture for sample in chosen_samples(run) for _, picture in media_pictures(sample)]


def offered(run: Run) -> dict[str, float]:
    """Modality -> share among all calibration tokens; empty if the run did not count them."""
    tokens = run.examples["calibration_tokens"]
    total = sum(tokens.values())
    return {name: count / total for name, count in tokens.items()} if total else {}


def chosen_samples(run: Run) -> list[Mapping[str, Any]]:
    """Calibration samples of which some tokens were chosen and others were not."""

    def picky(sample: Mapping[str, Any]) -> bool:
        return any(min(votes) < sample["linears"][block] for block, votes in sample["chosen"].items())

    return [sample for sample in run.examples["samples"] if picky(sample)]


def media_pictures(sample: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Picture]]:
    """Every picture, video and sound of a sample with the figure of its chosen tokens."""
    for number, medium in enumerate(sample["media"]):
        panels = _panels(sample, medium)
        name = f"tokens-{sample['id']}-{number + 1}"
        label = f"Tokens chosen in the {medium['kind']} of calibration sample {sample['id']}"
        if "grids" in medium:
            yield medium, Picture(name, label, lambda s, m=medium, p=panels: _overlay(m, p, s))  # type: ignore[misc]
        else:
            yield medium, Picture(name, label, lambda s, m=medium, p=panels: _strips(m, p, s))  # type: ignore[misc]


def _panels(sample: Mapping[str, Any], medium: Mapping[str, Any]) -> dict[str, list[float]]:
    """Title -> share of a block's linears that chose each token of the medium."""
    start, end = medium["start"], medium["start"] + medium["tokens"]
    return {
        f"block {int(block) + 1}": [vote / sample["linears"][block] for vote in votes[start:end]]
        for block, votes in sample["chosen"].items()
    }


def _overlay(medium: Mapping[str, Any], panels: Mapping[str, list[float]], style: Style) -> Figure:
    import numpy as np
    from PIL import Image

    content = base64.b64decode(medium["picture"].partition(",")[2])
    with Image.open(io.BytesIO(content)) as picture:
        return figures.token_overlay(medium, np.asarray(picture.convert("RGB")), panels, style)


def _strips(medium: Mapping[str, Any], panels: Mapping[str, list[float]], style: Style) -> Figure:
    timed = medium["kind"] in ("video", "audio")
    ends = ("start", "end") if timed else ("first", "last")
    label = f"time in the {medium['kind']}" if timed else "token of the picture"
    return figures.token_strips(panels, label, ends, style)


def save_pictures(pictures: list[Picture], folder: Path) -> None:
    """Every figure as PNG and SVG, for papers; a name that stands there already is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        with drawing() as style:
            save(picture.draw(style), folder, picture.name)
