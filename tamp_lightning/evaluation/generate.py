"""Answer questions with a whole model by generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.examples import Example, LeftCollator
from tamp_lightning.evaluation.items import ItemTask
from tamp_lightning.evaluation.reasoning import opened_reasoning, whole_replies
from tamp_lightning.evaluation.records import Record
from tamp_lightning.evaluation.task import LogProbs
from tamp_lightning.metrics.reasoning import final_answer


class GenerationTask(ItemTask):
    """Greedy replies, special tokens (but for marks of reasoning) and outer spaces taken off; an example is one
    question. Reasoning is kept in the reply, and taken off before a rule reads it."""

    answers = "generate"

    @cached_property
    def opened(self) -> str:
        """The mark of reasoning that the chat template leaves open."""
        return opened_reasoning(self.processor, self.options.thinking)

    def answer_of(self, record: Record) -> str:
        """All of a reply but its reasoning."""
        return final_answer(record.reply, self.opened)[0]

    def figures(self, records: Mapping[int, Record]) -> dict[str, dict[str, float]]:
        """The share of replies that end within their reasoning, if any does."""
        said = [record for record in records.values() if record.bad is None]
        cut = sum(record.cut for record in said)
        return {self.name: {"cut_in_reasoning": cut / len(said)}} if cut else {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def positions(self, index: int) -> Sequence[int]:
        """The question itself."""
        return [index]

    def collate(self, samples: Sequence[Example]) -> dict[str, Any]:
        """Padded on the left: `positions`, `bad`, and model inputs of those that could be read."""
        held = LeftCollator(self.processor, self.options.thinking)(samples)
        return {**(held.pop("inputs") or {}), **held}

    def answer(
        self, model: PreTrainedModel, batch: Mapping[str, Any], dense: LogProbs | None
    ) -> tuple[list[Record], dict[int, Tensor]]:
        """Generate replies.

        Raises:
            ValueError: a prompt with its media is too long for the model.
        """
        positions, records = batch["positions"], self.unread(batch)
        if not positions:
            return records, {}
        tokenizer = self.processor.tokenizer
        inputs = {name: _cast(value, model) for name, value in batch.items() if isinstance(value, Tensor)}
        length, limit = inputs["input_ids"].shape[1], self.options.new_tokens or self.benchmark.new_tokens
        self._check_length(model, length, limit, self.items.places[positions[0]])
        stop = getattr(model.generation_config, "eos_token_id", None)
        config = GenerationConfig(
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id if stop is None else stop,
            pad_token_id=tokenizer.pad_token_id,
        )
        tokens = model.generate(**inputs, generation_config=config)[:, length:]  # type: ignore[operator]
        replies = [reply.strip() for reply in whole_replies(tokenizer, tokens)]
        for position, reply in zip(positions, replies, strict=True):
            records.append(self.record(position, reply, cut=final_answer(reply, self.opened)[1]))
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
