"""Sections of a finetune recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tamp_lightning.errors import InputError
from tamp_lightning.methods.checks import check_at_least

LEARNING_RATES = {"full": 2e-4, "lora": 1e-3, "distill": 2e-4}
"""Peak learning rate of each mode where the recipe gives none."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    steps: int = 150
    """Optimiser steps, at most: held-out loss may end it before."""
    lr: float | None = None
    """Peak learning rate; default: 2e-4, and 1e-3 for lora."""
    warmup: int = 10
    """Steps of linear warm-up, after which a cosine falls to zero at the last step."""
    weight_decay: float = 0.01
    """AdamW's, on matrices only."""
    clip: float = 1.0
    """Largest norm of the gradient of the surviving weights; 0 = no limit."""
    check_every: int = 25
    """Steps between looks at the held-out loss; every one of them writes a checkpoint."""
    patience: int = 3
    """Stop after so many looks without a smaller held-out loss; 0 = never."""

    def __post_init__(self) -> None:
        check_at_least(1, "schedule.", self, "steps", "check_every")
        check_at_least(0, "schedule.", self, "warmup", "patience", "weight_decay", "clip")
        if self.lr is not None and self.lr <= 0:
            raise InputError(f"schedule.lr is {self.lr}; it has to be above 0")
        if self.warmup >= self.steps:
            raise InputError(f"schedule.warmup is {self.warmup}; it has to be below schedule.steps ({self.steps})")


@dataclass(frozen=True)
class LoraSection:
    """Mode lora."""

    rank: int = 16
    """Rank of the update of every linear."""
    alpha: float = 32.0
    """The update is multiplied by alpha / rank."""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise InputError(f"lora.rank is {self.rank} and lora.alpha {self.alpha}; both have to be above 0")


@dataclass(frozen=True)
class DistillSection:
    """Mode distill: the surviving weights learn to give the teacher's distribution over answer tokens."""

    teacher: str | None = None
    """The dense model: folder or hub id. Default: the `source` that the run folder names."""
    temperature: float = 1.0
    """Both distributions are softened by it, and the loss multiplied by its square."""
    answers: float = 0.0
    """Weight of the ordinary loss on the right answers beside the teacher's."""
    blocks: float = 0.0
    """Weight of the relative squared error of every decoder block's output; 0 = logits alone."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise InputError(f"distill.temperature is {self.temperature}; it has to be above 0")
        check_at_least(0, "distill.", self, "answers", "blocks")


@dataclass(frozen=True)
class FinetuneData:
    """What to train on, and what is held out to tell when to stop."""

    source: Literal["easy_vqa", "llava_json"] = "easy_vqa"
    """easy_vqa (its train split, by picture), or a json or jsonl file of conversations (LLaVA, or `messages`) with
    its media."""
    path: str | None = None
    """llava_json: the file."""
    media: str | None = None
    """llava_json: folder of the pictures, videos and sounds; default: the file's own."""
    bad_rows: Literal["refuse", "skip"] = "refuse"
    """llava_json: a row that is damaged, or whose media are missing or damaged, is an error, or is left out and
    counted."""
    batch: int = 2
    """Pictures (easy_vqa) or conversations (llava_json) per step and process."""
    questions: int = 8
    """easy_vqa: questions per picture, packed after it."""
    held_out: int = 24
    """Pictures or conversations that are never trained on, for the held-out loss."""
    seed: int = 42
    """Seed of the draw."""

    def __post_init__(self) -> None:
        check_at_least(1, "data.", self, "batch", "questions", "held_out")
        if self.source == "llava_json" and self.path is None:
            raise InputError("data.source llava_json needs data.path")
