"""Answer the questions of a benchmark with a whole model, in a validation loop, by generation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import GenerationConfig, PreTrainedModel, ProcessorMixin

from tamp_lightning.benchmarks.base import Benchmark, update
from tamp_lightning.data.readers.item import Items
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.examples import Examples, LeftCollator
from tamp_lightning.evaluation.predictions import Record, Store
from tamp_lightning.evaluation.reasoning import opened_reasoning, whole_replies
from tamp_lightning.metrics import LikelihoodChoice
from tamp_lightning.metrics.reasoning import final_answer


@dataclass(frozen=True)
class Way:
    """How questions are put to the model."""

    likelihood: bool = False
    new_tokens: int | None = None
    """Longest reply; default: the benchmark's own."""
    batch_size: int = 8
    frames: int = 8
    frames_as_pictures: bool = False
    skip_bad: bool = False
    thinking: bool = False
    """Let a model reason whose chat template can switch that off."""


@dataclass
class Answers:
    """What a validation loop gives."""

    results: dict[str, float] = field(default_factory=dict)
    """Figure -> value, over all processes."""
    values: list[float] = field(default_factory=list)
    """Score of every question, NaN where it was not answered."""
    seconds: float = 0.0


class AnswerModule(L.LightningModule):
    """Validation loop over the questions of one benchmark that have no record yet.

    Each process takes every n-th of them, none twice, writes its records as it goes, and updates the metric by
    position; `on_validation_epoch_end` merges the metrics. A process without a question would skip the loop and leave
    the others waiting, so it repeats the first, which a table by position does not mind.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        benchmark: Benchmark,
        items: Items,
        store: Store,
        way: Way,
    ) -> None:
        super().__init__()
        self.model, self.processor = model.eval(), processor
        self.benchmark, self.items, self.store, self.way = benchmark, items, store, way
        # None in a split without answers
        self.metric = benchmark.metric(items.items) if items.scored else None
        self.likelihood = LikelihoodChoice(len(items)) if way.likelihood and items.scored else None
        self.opened = opened_reasoning(processor, way.thinking)
        self.answers = Answers()
        self.done = store.records()

    def val_dataloader(self) -> DataLoader:
        """This process's share of the questions without a record."""
        pending = [n for n in range(len(self.items)) if n not in self.done]
        mine = pending[self.trainer.global_rank :: self.trainer.world_size] or pending[:1]
        way = self.way
        examples = Examples(
            self.benchmark,
            self.items,
            mine,
            self.processor,
            frames=way.frames,
            frames_as_pictures=way.frames_as_pictures,
            skip_bad=way.skip_bad,
        )
        return self.loader(examples)

    def loader(self, examples: Examples) -> DataLoader:
        """Batches for `answer`."""
        return DataLoader(examples, self.way.batch_size, collate_fn=LeftCollator(self.processor, self.way.thinking))

    def on_validation_start(self) -> None:
        """Take over what an earlier run answered."""
        self._score(list(self.done.values()))
        self._started = time.perf_counter()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Answer one batch and keep the records."""
        records = self.answer(batch) if batch["positions"] else []
        ids = [item.id for item in self.items.items]
        records += [Record(position, ids[position], bad=reason) for position, reason in batch["bad"].items()]
        self.store.append(self.global_rank, records)
        self._score(records)

    def answer(self, batch: dict[str, Any]) -> list[Record]:
        """Generate replies: greedy, special tokens (but for marks of reasoning) and outer spaces taken off.

        Raises:
            InputError: a prompt with its media is too long for the model.
        """
        tokenizer = self.processor.tokenizer
        inputs = {name: self._cast(value) for name, value in batch["inputs"].items()}
        length, limit = inputs["input_ids"].shape[1], self.way.new_tokens or self.benchmark.new_tokens
        self._check_length(length, limit, batch["positions"])
        defaults = self.model.generation_config
        stop = getattr(defaults, "eos_token_id", None)
        config = GenerationConfig(
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id if stop is None else stop,
            pad_token_id=tokenizer.pad_token_id,
        )
        tokens = self.model.generate(**inputs, generation_config=config)[:, length:]
        replies = whole_replies(tokenizer, tokens)
        return [self._record(n, reply.strip()) for n, reply in zip(batch["positions"], replies, strict=True)]

    def _cast(self, value: Tensor) -> Tensor:
        return value.to(self.model.dtype) if value.is_floating_point() else value

    def _check_length(self, length: int, limit: int, positions: Sequence[int]) -> None:
        longest = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if longest is not None and length + limit > longest:
            place = self.items.places[positions[0]]
            raise InputError(
                f"{place}: {length} tokens with media and {limit} to generate are more than the model's {longest}: "
                "use fewer frames or new_tokens"
            )

    def _record(self, position: int, reply: str, **more: Any) -> Record:
        cut = not self.way.likelihood and final_answer(reply, self.opened)[1]
        return Record(position, self.items.items[position].id, reply, cut=cut, **more)

    def _score(self, records: Sequence[Record]) -> None:
        asked = [record for record in records if record.bad is None]
        said = [record for record in asked if not record.cut]
        if self.metric is None or not asked:
            return
        self.metric.cut(torch.tensor([record.position for record in asked if record.cut], dtype=torch.int64))
        if not said:
            return
        positions = [record.position for record in said]
        update(self.metric, positions, [self.answer_of(record) for record in said], self.items.items)
        if self.likelihood is not None and self.benchmark.right is not None:
            width = max(len(record.nll) for record in said)
            nll = torch.full((len(said), width), torch.inf, dtype=torch.float64)
            lengths = torch.ones(len(said), width)
            for row, record in enumerate(said):
                nll[row, : len(record.nll)] = torch.tensor(record.nll, dtype=torch.float64)
                lengths[row, : len(record.nll)] = torch.tensor(record.lengths).float()
            right = [self.benchmark.right(self.items.items[position]) for position in positions]
            self.likelihood.update(torch.tensor(positions), nll, lengths, torch.tensor(right))

    def answer_of(self, record: Record) -> str:
        """What the rules of the benchmark are to read of a reply: all of it but its reasoning."""
        return record.reply if self.way.likelihood else final_answer(record.reply, self.opened)[0]

    def on_validation_epoch_end(self) -> None:
        """Merge the metrics of all processes into plain numbers."""
        self.answers.seconds = time.perf_counter() - self._started
        if self.metric is None:
            self.answers.values = [float("nan")] * len(self.items)
            return
        self.answers.results = {name: float(value) for name, value in self.metric.compute().items()}
        self.answers.values = self.metric.values().tolist()
        if self.likelihood is not None:
            margin = self.likelihood.compute()["margin"]
            self.answers.results["margin"] = float(margin)
