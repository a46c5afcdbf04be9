"""From the data section of a recipe to batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import ProcessorMixin

from tamp_lightning.data import sources
from tamp_lightning.data.conversations import ConversationCollator
from tamp_lightning.data.easy_vqa import by_picture, questions
from tamp_lightning.data.finetuning import Conversations, FinetuneBatches, PictureQuestions, collate_packed, split
from tamp_lightning.recipe_finetune import FinetuneData


def make_batches(choice: FinetuneData, processor: ProcessorMixin, lengths: Sequence[int]) -> FinetuneBatches:
    """Batches of a recipe.

    Raises:
        ValueError: a file is not what it should be, or has too few conversations.
        FileNotFoundError: easy-VQA is not installed.
    """
    if choice.source == "easy_vqa":
        pictures = sorted(by_picture(questions("train")))
        ours, others = split(len(pictures), choice.held_out, choice.seed, "easy-VQA's train split")
        numbers = [[pictures[k] for k in part] for part in (ours, others)]
        packed = [
            PictureQuestions(processor, part, choice.questions, seed)  # type: ignore[arg-type]
            for part, seed in zip(numbers, (choice.seed, None), strict=True)
        ]
        return FinetuneBatches(*packed, collate_packed, choice.batch, lengths)
    media = Path(choice.media) if choice.media else None
    samples = sources.from_llava_json(Path(str(choice.path)), media, None, choice.seed, processor)
    ours, others = split(len(samples), choice.held_out, choice.seed, str(choice.path))
    talks = [Conversations(samples, ours, choice.seed), Conversations(samples, others, None)]
    return FinetuneBatches(*talks, ConversationCollator(processor), choice.batch, lengths)
