"""Answer questions with a whole model by generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.examples import Example, LeftCollator
from tamp_lightning.evaluation.items import ItemTask
from tamp_lightning.evaluation.records import Record
from tamp_lightning.evaluation.task import LogProbs


class GenerationTask(ItemTask):
    """Greedy replies, special tokens and outer spaces taken off; an example is one question."""

    answers = "generate"

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def positions(self, index: int) -> Sequence[int]:
        """The question itself."""
        return [index]

    def collate(self, samples: Sequence[Example]) -> dict[str, Any]:
        """Padded on the left: `positions`, `bad`, and model inputs of those that could be read."""
        held = LeftCollator(self.processor)(samples)
        return {**(held.pop("inputs") or {}), **held}

    def answer(
        self, model: PreTrainedModel, batch: Mapping[str, Any], dense: LogProbs | None
    ) -> tuple[list[Record], dict[int, Tensor]]:
        """Generate replies.

        Raises:
            InputError: a prompt with its media is too long for the model.
        """
        positions, records = batch["positions"], self.unread(batch)
        if not positions:
            return records, {}
        tokenizer = self.processor.tokenizer
        inputs = {name: _cast(value, model) for name, value in batch.items() if isinstance(value, Tensor)}
        length, limit = inputs["input_ids"].shape[1], self.way.new_tokens or self.benchmark.new_tokens
        self._check_length(model, length, limit, self.items.places[positions[0]])
        stop = getattr(model.generation_config, "eos_token_id", None)
        config = GenerationConfig(
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id if stop is None else stop,
            pad_token_id=tokenizer.pad_token_id,
        )
        tokens = model.generate(**inputs, generation_config=config)[:, length:]  # type: ignore[operator]
        replies = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        records += [self.record(n, reply.strip()) for n, reply in zip(positions, replies, strict=True)]
        return records, {}

    @staticmethod
    def _check_length(model: PreTrainedModel, length: int, limit: int, place: str) -> None:
        longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if longest is not None and length + limit > longest:
            raise InputError(
                f"{place}: {length} tokens with media and {limit} to generate are more than the model's {longest}: "
                "use fewer frames or new_tokens"
            )


def _cast(value: Tensor, model: PreTrainedModel) -> Tensor:
    return value.to(model.dtype) if value.is_floating_point() else value
