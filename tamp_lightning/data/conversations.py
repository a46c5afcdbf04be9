"""Training batches of whole conversations: labels on what the assistant says, nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import ProcessorMixin

from tamp_lightning.data.calibration import Collator, Sample
from tamp_lightning.data.chats import Messages
from tamp_lightning.data.packing import IGNORE
from tamp_lightning.errors import InputError

PARTS = {"image": "images", "video": "videos", "audio": "audio"}


class ConversationCollator:
    """Right-padded model inputs, `valid` [B,n], and `labels` [B,n], shifted: the token that follows, where the
    assistant says it (its end mark included), -100 elsewhere.

    Where a turn begins and ends is told from how many tokens the conversation up to there has, pictures included, so it
    holds for any chat template and processor.
    """

    def __init__(self, processor: ProcessorMixin) -> None:
        self.whole, self.prompt = Collator(processor), Collator(processor, prompt=True)
        self.end = processor.tokenizer.eos_token_id

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """One batch.

        Raises:
            InputError: a conversation has no assistant turn, or its template changes what precedes a turn.
        """
        batch = self.whole(samples)
        del batch["sample_ids"]
        labels = torch.full_like(batch["input_ids"], IGNORE)
        for row, sample in enumerate(samples):
            ids = batch["input_ids"][row][batch["valid"][row]]
            for start, stop in self._turns(sample, ids):
                labels[row, start - 1 : stop - 1] = ids[start:stop]
        if not bool(batch["valid"].all()):
            batch["attention_mask"] = batch["valid"].long()
        return {**batch, "labels": labels}

    def _turns(self, sample: Sample, ids: Tensor) -> list[tuple[int, int]]:
        """First token and end of everything the assistant says."""
        turns = []
        for k, message in enumerate(sample.messages):
            if message["role"] == "assistant":
                start = len(self._prefix(self.prompt, sample, k, ids))
                said = ids[start : len(self._prefix(self.whole, sample, k + 1, ids))]
                marks = (said == self.end).nonzero()
                turns.append((start, start + (int(marks[0]) + 1 if len(marks) else len(said))))
        if not turns:
            raise InputError(f"conversation {sample.id} has no turn of the assistant: there is nothing to learn from")
        return turns

    def _prefix(self, collator: Collator, sample: Sample, turns: int, ids: Tensor) -> Tensor:
        """Tokens of the first turns, which must begin the whole conversation."""
        prefix = collator([_first(sample, turns)])["input_ids"][0]
        if not torch.equal(prefix, ids[: len(prefix)]):
            raise InputError(
                f"conversation {sample.id}: the chat template changes its first {turns} turns when more follow"
            )
        return prefix


def _first(sample: Sample, turns: int) -> Sample:
    """The sample up to its first so many turns, with the media that these name."""
    messages: Messages = sample.messages[:turns]
    named = [part["type"] for message in messages for part in message["content"]]
    media = {name: getattr(sample, name)[: named.count(kind)] for kind, name in PARTS.items()}
    return replace(sample, messages=messages, **media)
