"""What two models said to the same questions, as a section of a page and as a page of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tamp_lightning.evaluation.comparison import Scored
from tamp_lightning.evaluation.task import Task
from tamp_lightning.reporting.examples import thumbnail, worst_flips
from tamp_lightning.reporting.gallery import score_picture
from tamp_lightning.reporting.page import embedded, write_page
from tamp_lightning.reporting.wording import benchmark_label, p_value, points

SIDES = ("dense", "pruned")


def quality_context(scored: Scored, shown: Mapping[str, Any], sides: Sequence[str] = SIDES) -> dict[str, Any]:
    """What quality.html is filled in with, figures aside.

    Args:
        scored: scores of both models.
        shown: name of a picture -> data URI, of those that are worth showing.
        sides: what the two models are called.
    """
    return {
        "scored": scored,
        "sides": sides,
        "fidelity": fidelity(scored),
        "flips": [_flip(row, shown) for row in worst_flips(scored.rows)],
        "flip_sentence": flips(scored),
    }


def verdict(scored: Scored) -> str:
    """The pooled verdict in a sentence."""
    count = len(scored.benchmarks)
    over = benchmark_label(scored.benchmarks[0].name) if count == 1 else f"all {count} benchmarks"
    return (
        f"Over {over}: {points(scored.change)}, {scored.verdict} (McNemar's exact test: p {p_value(scored.mcnemar)})."
    )


def fidelity(scored: Scored) -> str:
    """How the pruned model's answer tokens differ from the dense one's."""
    found = scored.metrics["fidelity"]
    if not found:
        return "Replies were generated, so that no answer tokens were compared one by one."
    return (
        f"Both models rank the same token first on {100 * found['top1_agreement']:.1f} % of the answer tokens; the "
        f"negative log-likelihood of the right ones went from {found['nll_dense']:.3f} to {found['nll_pruned']:.3f}."
    )


def flips(scored: Scored) -> str:
    """How many answers went from right to wrong and back."""
    lost = sum(row["dense_score"] >= 0.5 > row["pruned_score"] for row in scored.rows)
    won = sum(row["pruned_score"] >= 0.5 > row["dense_score"] for row in scored.rows)
    return (
        f"{lost} of {len(scored.rows):,} questions went from right to wrong, {won} the other way. "
        "Below, from the benchmarks in turn, those whose right answer lost most of its probability (if that is known)."
    )


def write_quality(
    path: Path,
    title: str,
    metrics: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    tasks: Sequence[Task],
    sides: Sequence[str] = SIDES,
) -> Path:
    """A page on two models, with the pictures or video frames of questions that flipped.

    Args:
        path: of the page.
        title: its headline.
        metrics: content of metrics.json.
        rows: of predictions.parquet, the models called dense and pruned.
        tasks: what was asked; they have the pictures.
        sides: what the page calls the two models.
    """
    scored = Scored(metrics, rows)
    shown = {name: thumbnail(picture) for name, picture in flip_pictures(scored, tasks).items()}
    context = {"title": title, "verdict": verdict(scored), "pictures": embedded([score_picture(scored, sides)])}
    return write_page(path, "scores.html", {**context, **quality_context(scored, shown, sides)})


def flip_pictures(scored: Scored, tasks: Sequence[Task]) -> dict[str, Any]:
    """Pictures of the questions that are worth showing, by their name in predictions.parquet."""
    of = {name: task for task in tasks for name in task.chance()}
    worst = worst_flips(scored.rows)
    shown = {str(row["picture"]): of[row["benchmark"]].picture(row["picture"]) for row in worst}
    return {name: picture for name, picture in sorted(shown.items()) if picture is not None}


def _flip(row: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    """A flipped question with its picture, if it was kept, and how sure both models were of the right answer."""
    before, after = row.get("dense_certainty"), row.get("pruned_certainty")
    certainty = None if before is None or after is None else f"{100 * before:.0f} % → {100 * after:.0f} %"
    held = shown.get(str(row["picture"]))
    return {**row, "uri": held if is_picture(held) else None, "certainty": certainty}


def is_picture(uri: object) -> bool:
    """Whether a page may show it: pictures are part of the page, nothing is fetched."""
    return isinstance(uri, str) and uri.startswith("data:image/")
