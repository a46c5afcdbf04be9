"""Answer questions by likelihood: no generation, no parsing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaNextProcessor, PreTrainedModel, ProcessorMixin

from tamp_lightning.benchmarks.base import Benchmark
from tamp_lightning.data.packing import Packed, pack
from tamp_lightning.data.readers.item import Items
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.items import ItemTask
from tamp_lightning.evaluation.packed import PackedTask, packed_batch
from tamp_lightning.evaluation.records import Record
from tamp_lightning.evaluation.task import LogProbs
from tamp_lightning.metrics import LikelihoodChoice

TOGETHER = 8
"""Most questions of one picture in one sequence: attention grows with the square of its length."""


class LikelihoodTask(ItemTask, PackedTask):
    """The reply is the candidate with the lowest mean NLL over its tokens.

    An example is a picture: all candidates of all its questions share one forward pass.
    """

    answers = "likelihood"

    @cached_property
    def groups(self) -> list[list[int]]:
        """Questions about the same picture, at most `TOGETHER` of them."""
        found: dict[str, list[int]] = {}
        for position, picture in enumerate(self.pictures):
            found.setdefault(picture, []).append(position)
        return [own[k : k + TOGETHER] for own in found.values() for k in range(0, len(own), TOGETHER)]

    def __len__(self) -> int:
        return len(self.groups)

    def positions(self, index: int) -> Sequence[int]:
        """Questions of one group."""
        return self.groups[index]

    def __getitem__(self, index: int) -> tuple[Packed | str, list[int]]:
        positions = self.groups[index]
        example = self.examples[positions[0]]
        if example.bad is not None:
            return example.bad, positions
        continuations = self.benchmark.continuations or self.benchmark.candidates
        assert isinstance(self.processor, LlavaNextProcessor)
        assert continuations is not None  # check_likelihood saw to both
        asked = [self.items.items[position] for position in positions]
        turns = [(self.benchmark.prompt(item), words) for item in asked for words in continuations(item)]
        return pack(self.processor, example.images[0], turns), positions

    def collate(self, samples: Sequence[tuple[Packed | str, list[int]]]) -> dict[str, Any]:
        """Packed batch of what could be read, and `bad`: reasons by position."""
        good = [(packed, positions) for packed, positions in samples if isinstance(packed, Packed)]
        bad = {n: reason for reason, positions in samples if isinstance(reason, str) for n in positions}
        return {**(packed_batch(good) if good else {}), "bad": bad}

    def answer(
        self, model: PreTrainedModel, batch: Mapping[str, Any], dense: LogProbs | None
    ) -> tuple[list[Record], dict[int, Tensor]]:
        """Records of all questions of a batch, and the log-probabilities on their right answers."""
        records, log_probs = super().answer(model, batch, dense) if "items" in batch else ([], {})
        return self.unread(batch) + records, log_probs

    def judge(
        self, batch: Mapping[str, Tensor], log_probs: Tensor, labels: Tensor, first: Tensor
    ) -> tuple[list[Record], list[int]]:
        """The likeliest candidate of each question, its NLLs, and the right one's share of the probability."""
        nll = -log_probs.gather(1, labels[:, None])[:, 0].double().cpu()
        turns = batch["turns"].cpu()
        sums = torch.zeros(len(first), dtype=torch.float64).index_add_(0, turns, nll)
        lengths = torch.bincount(turns, minlength=len(first))
        records, right, start = [], [], 0
        for position in batch["items"].tolist():
            item = self.items.items[position]
            candidates = list(self.benchmark.candidates(item))  # type: ignore[misc]
            own = slice(start, start + len(candidates))
            means, answer = sums[own] / lengths[own], self.benchmark.answer_index(item)  # type: ignore[misc]
            more = {"nll": tuple(sums[own].tolist()), "lengths": tuple(lengths[own].tolist())}
            sure = float((-means).softmax(0)[answer])
            records.append(self.record(position, candidates[int(means.argmin())], certainty=sure, **more))
            right.append(start + answer)
            start += len(candidates)
        return records, right

    def figures(self, records: Mapping[int, Record]) -> dict[str, dict[str, float]]:
        """Mean distance in nats between the best wrong candidate and the right one."""
        said = [record for record in records.values() if record.bad is None]
        if not said:
            return {}
        table = LikelihoodChoice(len(self.items), distributed_available_fn=lambda: False)
        width = max(len(record.nll) for record in said)
        nll, lengths = torch.full((len(said), width), torch.inf, dtype=torch.float64), torch.ones(len(said), width)
        for row, record in enumerate(said):
            nll[row, : len(record.nll)] = torch.tensor(record.nll, dtype=torch.float64)
            lengths[row, : len(record.nll)] = torch.tensor(record.lengths).float()
        positions = [record.position for record in said]
        right = [self.benchmark.answer_index(self.items.items[position]) for position in positions]  # type: ignore[misc]
        table.update(torch.tensor(positions), nll, lengths, torch.tensor(right))
        return {self.name: {"margin": float(table.compute()["margin"])}}


def check_likelihood(benchmark: Benchmark, items: Items, processor: ProcessorMixin) -> None:
    """Refuse scoring by likelihood where it has no meaning or cannot be done.

    Raises:
        ValueError: no closed set of answers, not one picture a question, or a processor that is not LLaVA-NeXT's.
    """
    remedy = "use answers: generate"
    if benchmark.candidates is None or benchmark.answer_index is None:
        raise InputError(f"{benchmark.name} has no closed set of answers to score by likelihood: {remedy}")
    if not isinstance(processor, LlavaNextProcessor):
        raise InputError(f"scoring by likelihood needs LlavaNextProcessor, got {type(processor).__name__}: {remedy}")
    if any([media.kind for media in item.media] != ["image"] for item in items.items):
        raise InputError(f"{benchmark.name} has questions without exactly one picture: {remedy}")
