"""Scores of a finetuned model beside those it started from."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tamp_lightning.config.recipe import FinetuneRecipe
from tamp_lightning.evaluation.scoring import Scores, score
from tamp_lightning.evaluation.suite import Suite
from tamp_lightning.metrics import corrected_retention, retention
from tamp_lightning.passes.trainer import scoring_trainer
from tamp_lightning.runs.clock import PhaseClock
from tamp_lightning.runs.environment import compute_dtype
from tamp_lightning.tasks.prune import load_whole


def score_all(
    folders: Mapping[str, Path | None], suite: Suite, recipe: FinetuneRecipe, clock: PhaseClock
) -> dict[str, Scores]:
    """Scores of each checkpoint of `folders` (name -> folder, or None for one that is not known), one after another.

    The rest is also compared with the one called `dense`, which has to come first.
    """
    found: dict[str, Scores] = {}
    given = {k: v for k, v in recipe.trainer.items() if k in ("accelerator", "enable_progress_bar")}
    for name, folder in folders.items():
        if folder is None:
            continue
        with clock.phase(f"score {name}"):
            trainer = scoring_trainer(name, **given)
            model = load_whole(folder, compute_dtype("auto", trainer.strategy.root_device))
            size = recipe.scores.batch_size
            found[name] = score(model, suite, trainer, batch_size=size, dense=found.get("dense"))
            if name != "dense":
                found[name].log_probs = []
            del model, trainer
            gc.collect()
    return found


def summarise_finetuned(suite: Suite, found: Mapping[str, Scores]) -> dict[str, Any]:
    """Content of metrics.json; retention and fidelity only where the dense model was scored too."""
    floor, rows = suite.floor(), {name: suite.headline(scores.results) for name, scores in found.items()}
    content: dict[str, Any] = {
        "split": suite.split,
        "questions": len(suite.right),
        "floor": floor,
        "scores": rows,
        "results": {name: scores.results for name, scores in found.items()},
    }
    if "dense" in rows:
        dense = rows["dense"]
        above = all(dense[kind] > floor[kind] for kind in dense)
        sparse = {name: row for name, row in rows.items() if name != "dense"}
        content["retention"] = {name: retention(dense, row) for name, row in sparse.items()}
        content["corrected_retention"] = {
            name: corrected_retention(dense, row, floor) if above else None for name, row in sparse.items()
        }
    return content
