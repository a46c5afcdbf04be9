"""From the data section of a recipe to batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import ProcessorMixin

from tamp_lightning.config.finetune import FinetuneData
from tamp_lightning.data import sources
from tamp_lightning.data.conversations import ConversationCollator
from tamp_lightning.data.easy_vqa import by_picture, questions
from tamp_lightning.data.finetuning import Conversations, FinetuneBatches, PictureQuestions, collate_packed, split


def make_batches(choice: FinetuneData, processor: ProcessorMixin, lengths: Sequence[int]) -> FinetuneBatches:
    """Batches of a recipe; `lengths` is how many each of Lightning's epochs has.

    Raises:
        InputError: a file is not what it should be, or has too few conversations.
        FileNotFoundError: easy-VQA is not installed.
    """
    if choice.source == "easy_vqa":
        train, held_out = _pictures(choice, processor)
        return FinetuneBatches(train, held_out, collate_packed, choice.batch, lengths)
    talks, others = _conversations(choice, processor)
    return FinetuneBatches(talks, others, ConversationCollator(processor), choice.batch, lengths)


def _pictures(choice: FinetuneData, processor: Any) -> tuple[PictureQuestions, PictureQuestions]:
    numbers = sorted(by_picture(questions("train")))
    ours, others = split(len(numbers), choice.held_out, choice.seed, "easy-VQA's train split")
    train = PictureQuestions(processor, [numbers[k] for k in ours], choice.questions, choice.seed)
    return train, PictureQuestions(processor, [numbers[k] for k in others], choice.questions, None)


def _conversations(choice: FinetuneData, processor: ProcessorMixin) -> tuple[Conversations, Conversations]:
    media = Path(choice.media) if choice.media else None
    samples = sources.from_llava_json(Path(str(choice.path)), media, None, choice.seed, processor, choice.bad_rows)
    ours, others = split(len(samples), choice.held_out, choice.seed, str(choice.path))
    return Conversations(samples, ours, choice.seed), Conversations(samples, others, None)
