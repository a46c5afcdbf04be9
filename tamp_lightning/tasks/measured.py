"""Scores of the dense blocks that another run has measured already: cells of a comparison share them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tamp_lightning.checkpoint.reader import read_json
from tamp_lightning.config.recipe import PruneRecipe
from tamp_lightning.ops.diversity import MODALITIES
from tamp_lightning.passes.callbacks.allocation import METERS
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


def hand_on(finished: Path, state: RunState, stream: Stream) -> None:
    """Note the scores of a finished run as if the run of `state` had measured them, and how long that took.

    Args:
        finished: its run folder.
        state: of a run that has not begun, and for which `measure_alike` holds.
        stream: owner of the weights.
    """
    linears = read_json(finished / "plan.json")["linears"]
    seconds = {"measure": read_json(finished / "run.json")["seconds"]["measure"]}
    for index, block in enumerate(stream.facts.linears):
        rows = {linear.full: linears[linear.full] for linear in block}
        scores = {name: row.get("diversity", row.get("score")) for name, row in rows.items()}
        cosines = {name: _cosines(row["cosine"]) for name, row in rows.items() if "cosine" in row}
        state.save(f"measured-{index:05d}", {"scores": scores, "seconds": seconds}, cosines)


def _cosines(pairs: dict[str, float]) -> Tensor:
    """[4,4] mean cosines between modalities from their names, NaN where there is none."""
    found = torch.full((len(MODALITIES), len(MODALITIES)), torch.nan, dtype=torch.float64)
    for names, value in pairs.items():
        row, column = map(MODALITIES.index, names.split("-"))
        found[row, column] = found[column, row] = value
    return found
