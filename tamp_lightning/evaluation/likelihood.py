"""Answer the questions of a benchmark by likelihood: no generation, no parsing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import LlavaNextProcessor, ProcessorMixin

from tamp_lightning.benchmarks.base import Benchmark
from tamp_lightning.data.packing import IGNORE, collate, pack
from tamp_lightning.data.readers.item import Items
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.examples import Example, Examples
from tamp_lightning.evaluation.generate import AnswerModule
from tamp_lightning.evaluation.predictions import Record
from tamp_lightning.evaluation.scoring import answer_logits


class LikelihoodModule(AnswerModule):
    """The reply is the candidate with the lowest mean NLL over its tokens; all candidates share one forward pass."""

    def loader(self, examples: Examples) -> DataLoader:
        """Batches of packed questions."""
        return DataLoader(_Packed(examples), self.way.batch_size, collate_fn=_collate)

    def answer(self, batch: dict[str, Any]) -> list[Record]:
        """NLL of each candidate, and the likeliest as reply."""
        logits, labels, _ = answer_logits(self.model, batch["inputs"])
        nll = -logits.float().log_softmax(-1).gather(1, labels[:, None])[:, 0].double().cpu()
        wanted = batch["inputs"]["labels"] != IGNORE
        rows, segments = wanted.nonzero()[:, 0].cpu(), batch["inputs"]["segments"][wanted].cpu()
        records = []
        for row, position in enumerate(batch["positions"]):
            candidates = list(self.benchmark.candidates(self.items.items[position]))  # type: ignore[misc]
            parts = [nll[(rows == row) & (segments == k)] for k in range(1, len(candidates) + 1)]
            means = torch.stack([part.mean() for part in parts])
            more = {"nll": tuple(float(p.sum()) for p in parts), "lengths": tuple(len(p) for p in parts)}
            records.append(self._record(position, candidates[int(means.argmin())], **more))
        return records


class _Packed(Dataset):
    """Each question with all its candidates behind one picture."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Example, Any]:
        example, own = self.examples[index], self.examples
        if example.bad is not None:
            return example, None
        item = own.items.items[example.position]
        text = own.benchmark.prompt(item)
        spoken = (own.benchmark.spoken or own.benchmark.candidates)(item)  # type: ignore[misc]
        assert isinstance(own.processor, LlavaNextProcessor)
        return example, pack(own.processor, example.images[0], [(text, words) for words in spoken])


def _collate(samples: Sequence[tuple[Example, Any]]) -> dict[str, Any]:
    good = [(example, packed) for example, packed in samples if packed is not None]
    return {
        "positions": [example.position for example, _ in good],
        "inputs": collate([packed for _, packed in good]) if good else None,
        "bad": {example.position: example.bad for example, packed in samples if packed is None},
    }


def check_likelihood(benchmark: Benchmark, items: Items, processor: ProcessorMixin) -> None:
    """Refuse scoring by likelihood where it has no meaning or cannot be done.

    Raises:
        InputError: no closed set of answers, not one picture a question, or a processor that is not LLaVA-NeXT's.
    """
    remedy = "use answers: generate"
    if benchmark.candidates is None:
        raise InputError(f"{benchmark.name} has no closed set of answers to score by likelihood: {remedy}")
    if not isinstance(processor, LlavaNextProcessor):
        raise InputError(f"scoring by likelihood needs LlavaNextProcessor, got {type(processor).__name__}: {remedy}")
    if any([media.kind for media in item.media] != ["image"] for item in items.items):
        raise InputError(f"{benchmark.name} has questions without exactly one picture: {remedy}")
