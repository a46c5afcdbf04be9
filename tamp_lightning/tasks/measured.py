"""Scores of the dense blocks that another run has measured already: cells of a comparison share them."""

from __future__ import annotations

from typing import Any

from tamp_lightning.config.recipe import PruneRecipe
from tamp_lightning.passes.callbacks.allocation import METERS
from tamp_lightning.runs.folder import RunFolder
from tamp_lightning.runs.plan import measured
from tamp_lightning.runs.resume import settings_of
from tamp_lightning.runs.state import RunState
from tamp_lightning.stream.base import Stream


def measure_alike(one: PruneRecipe, other: PruneRecipe) -> bool:
    """Whether two recipes have a measure walk, and in it the same scores."""
    rule = one.method.allocation_rule
    walks = rule.basis in METERS and one.method.mode != "one_shot"
    return walks and rule == other.method.allocation_rule and _asked(one) == _asked(other)


def _asked(recipe: PruneRecipe) -> list[Any]:
    settings = settings_of(recipe)
    return [recipe.method.mode, *(settings[key] for key in ("model", "calibration", "towers", "trainer", "seed"))]


def reuse_measurements(finished: RunFolder, state: RunState, stream: Stream) -> None:
    """Note the scores of a finished run as if the run of `state` had measured them, and how long that took.

    Args:
        finished: its run folder.
        state: of a run that has not begun, and for which `measure_alike` holds.
        stream: owner of the weights.
    """
    linears = finished.read_plan().linears
    seconds = {"measure": finished.read_run()["seconds"]["measure"]}
    for index, block in enumerate(stream.facts.linears):
        found = {linear.full: measured(linears[linear.full]) for linear in block}
        scores = {name: score for name, (score, _) in found.items()}
        cosines = {name: cosine for name, (_, cosine) in found.items() if cosine is not None}
        state.save(f"measured-{index:05d}", {"scores": scores, "seconds": seconds}, cosines)
