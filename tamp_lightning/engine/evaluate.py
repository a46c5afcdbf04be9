"""Score one checkpoint, beside controls that take the picture away."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from transformers import AutoProcessor

from tamp_lightning.benchmarks.easy_vqa import EasyVqaSuite, Pictures
from tamp_lightning.engine.prune import as_dtype, load_whole
from tamp_lightning.engine.run_folder import write_json
from tamp_lightning.engine.scoring import score
from tamp_lightning.engine.trainer import scoring_trainer
from tamp_lightning.models.checkpoints import resolve
from tamp_lightning.recipe import EvaluateRecipe
from tamp_lightning.reporting.table import control_table


def run_evaluate(recipe: EvaluateRecipe, console: Console) -> dict[str, dict[str, dict[str, float]]]:
    """Do what an evaluate recipe says: figures by kind of picture ("own", "shuffled", "blank"), and the blind floor.

    Raises:
        ValueError, FileNotFoundError: bad input, before anything is written.
    """
    out = Path(recipe.out) if recipe.out else None
    if out is not None and out.exists():
        raise ValueError(f"{out} exists: nothing is overwritten, choose another file with --out")
    folder = resolve(recipe.model.checkpoint)
    processor, trainer = AutoProcessor.from_pretrained(folder), scoring_trainer(**recipe.trainer)
    model = load_whole(folder, as_dtype(recipe.model.dtype))
    rows: dict[str, dict[str, dict[str, float]]] = {}
    kinds: list[Pictures] = ["own", *recipe.controls]
    for kind in kinds:
        suite = EasyVqaSuite(processor, recipe.scores.split, recipe.scores.slice, kind)
        rows[kind] = score(model, suite, trainer, batch_size=recipe.scores.batch_size).results
    floor = suite.floor()
    console.print(control_table(rows, floor))
    if out is not None:
        write_json(out, {**rows, "floor": floor, "questions": len(suite.items), "split": suite.split})
    return rows
