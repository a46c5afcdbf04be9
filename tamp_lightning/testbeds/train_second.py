"""Train the second edition of smol-llava-next on pictures and questions in the benchmarks' wordings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader

from tamp_lightning.config.recipe import TrainBedRecipe
from tamp_lightning.evaluation.packed import PackedTask
from tamp_lightning.testbeds.checkpoints import load_trained
from tamp_lightning.testbeds.mixture import KINDS, MixedQuestions, NamedPictures
from tamp_lightning.testbeds.naming import Naming
from tamp_lightning.testbeds.skills import FormSuite, Shown, SkillSuite
from tamp_lightning.testbeds.smol_llava_next import build_untrained
from tamp_lightning.testbeds.train_stages import TrainedBed
from tamp_lightning.testbeds.train_whole import InstructionStage, train_whole

PICTURES_PER_SEED = 10**6


def train_second(recipe: TrainBedRecipe, write: Callable[[str], None]) -> TrainedBed:
    """One stage on easy-VQA's train pictures and train scenes, in float32; what is returned is what ships.

    Raises:
        FileNotFoundError: easy-VQA or the language model is not installed.
    """
    model, processor = build_untrained(torch.float32)
    align, total = recipe.align, recipe.align.steps
    first = recipe.seed * PICTURES_PER_SEED
    mixed = MixedQuestions(processor, total * align.pictures, align.questions, first, recipe.easy)
    loaders: list[DataLoader] = [DataLoader(mixed, batch_size=align.pictures, collate_fn=mixed.collate)]
    naming = Naming(model, processor) if recipe.named else None
    if recipe.named:
        loaders.append(DataLoader(NamedPictures(total * recipe.named, first), batch_size=recipe.named))
    stage = InstructionStage(model, align, KINDS, naming)
    state = train_whole(stage, [("smol_llava_next", "")], recipe, CombinedLoader(loaders, "min_size"), write)
    return trained_bed(state, recipe.easy)


def trained_bed(state: dict[str, Tensor], easy: float) -> TrainedBed:
    """The model that a file with these tensors makes, and what it is scored on."""
    model, processor = build_untrained(torch.bfloat16)
    load_trained(model, state, Path("towers.safetensors"))
    kinds: tuple[Shown, ...] = ("own", "shuffled", "blank", "unseen")
    made_for = FormSuite if easy == 1 else SkillSuite
    suites: dict[str, PackedTask] = {kind: made_for(processor, "test", "quick", kind) for kind in kinds}
    data = "PyPI easy-vqa==1.0, the first 3,500 train pictures"
    if easy < 1:
        data += f" ({easy:.0%} of the pictures), and train scenes of tamp_lightning.testbeds.scenes"
    return TrainedBed(model, state, suites, data)
