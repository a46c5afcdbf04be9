"""Train the second edition of smol-videollama2 on clips and questions in the benchmarks' wordings."""

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
from tamp_lightning.testbeds.clip_suite import ClipSuite, Shown
from tamp_lightning.testbeds.clip_training import KINDS, ClipBank, WordedClips
from tamp_lightning.testbeds.smol_videollama2 import build_untrained
from tamp_lightning.testbeds.train_stages import TrainedBed
from tamp_lightning.testbeds.train_whole import InstructionStage, train_whole

STARTS = (("smol_llava_next_2", "language_model"), ("smol_videollama2", ""))
"""A language model that has seen the benchmarks' wordings of pictures, and the first edition's towers."""


def train_second_clips(recipe: TrainBedRecipe, write: Callable[[str], None]) -> TrainedBed:
    """One stage on clips of the train split, in float32; what is returned is what ships.

    Raises:
        FileNotFoundError: the language model is not installed.
    """
    model, processor = build_untrained(torch.float32)
    bank, align = ClipBank(processor, recipe.clips), recipe.align
    clips = WordedClips(bank, align.steps * align.pictures, align.questions)
    loader = DataLoader(clips, batch_size=align.pictures, collate_fn=clips.collate)
    stage = InstructionStage(model, align, KINDS)
    state = train_whole(stage, STARTS, recipe, CombinedLoader([loader], "min_size"), write)
    return trained_bed(state, recipe.clips)


def trained_bed(state: dict[str, Tensor], clips: int) -> TrainedBed:
    """The model that a file with these tensors makes, and what it is scored on."""
    model, processor = build_untrained(torch.bfloat16)
    load_trained(model, state, Path("towers.safetensors"))
    controls: tuple[Shown, ...] = ("own", "muted", "blank", "shuffled")
    suites: dict[str, PackedTask] = {shown: ClipSuite(processor, "test", "quick", shown) for shown in controls}
    return TrainedBed(model, state, suites, f"the first {clips} clips of the train split")
