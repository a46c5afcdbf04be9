"""Train the second edition of smol-videollama2 on clips and questions in the benchmarks' wordings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader

from tamp_lightning.config.recipe import TrainBedRecipe
from tamp_lightning.evaluation.packed import PackedTask
from tamp_lightning.testbeds.checkpoints import load_trained
from tamp_lightning.testbeds.clip_suite import ClipSuite, Shown
from tamp_lightning.testbeds.clip_training import ClipBank, WordedClips
from tamp_lightning.testbeds.clips import CATEGORIES
from tamp_lightning.testbeds.low_rank import is_linear
from tamp_lightning.testbeds.smol_videollama2 import build_untrained
from tamp_lightning.testbeds.train_stages import TrainedBed, fit_stage
from tamp_lightning.testbeds.train_whole import InstructionStage, KeepProgress, begin, shipped, trained_state


def train_second_clips(recipe: TrainBedRecipe, write: Callable[[str], None]) -> TrainedBed:
    """One stage on clips of the train split, in float32; what is returned is what ships.

    Raises:
        FileNotFoundError: the language model is not installed.
    """
    model, processor = build_untrained(torch.float32)
    before = {k: v.clone() for k, v in model.state_dict().items() if is_linear(k)}
    begin(model, "smol_videollama2", recipe.begin)
    bank, align = ClipBank(processor, recipe.clips), recipe.align
    clips = WordedClips(bank, align.steps * align.pictures, align.questions)
    loader = DataLoader(clips, batch_size=align.pictures, collate_fn=clips.collate)
    keep = KeepProgress(recipe.folder / "progress.safetensors", 5 * align.log_every)
    with sdpa_kernel(SDPBackend.MATH):  # backward through the fused kernel is slow on a CPU
        fit_stage(
            InstructionStage(model, align, CATEGORIES), ((batch,) for batch in loader), write, keep, **recipe.trainer
        )
    return trained_bed(shipped(trained_state(model), before, recipe.rank), recipe.clips)


def trained_bed(state: dict[str, Tensor], clips: int) -> TrainedBed:
    """The model that a file with these tensors makes, and what it is scored on."""
    model, processor = build_untrained(torch.bfloat16)
    load_trained(model, state, Path("towers.safetensors"))
    controls: tuple[Shown, ...] = ("own", "muted", "blank", "shuffled")
    suites: dict[str, PackedTask] = {shown: ClipSuite(processor, "test", "quick", shown) for shown in controls}
    return TrainedBed(model, state, suites, f"the first {clips} clips of the train split")
