"""Answers of packed questions: one forward pass per picture, no generation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tamp_lightning.data.packing import IGNORE, Packed, collate
from tamp_lightning.evaluation.records import Record
from tamp_lightning.evaluation.task import LogProbs, Task
from tamp_lightning.metrics import SampleTable
from tamp_lightning.metrics.fidelity import kl_divergence, token_sums

EXTRAS = ("labels", "segments", "answers", "items", "turns", "bad")
"""Entries of a batch that are no input of the model."""


def answer_rows(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Positions before answer tokens.

    Args:
        batch: `labels` [B,n] and `answers` [turns,2] from `data.packing.collate`.

    Returns:
        bool [B,n] where an answer token follows, the labels [tokens] there, and the row [turns] among these in front
        of each answer's first token.
    """
    wanted = batch["labels"] != IGNORE
    order = (wanted.flatten().cumsum(0) - 1).view_as(wanted)
    rows, positions = batch["answers"].unbind(1)
    return wanted, batch["labels"][wanted], order[rows, positions]


def answer_logits(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits before answer tokens, nowhere else.

    Args:
        model: any transformers model with a body `model` and a head.
        batch: from `data.packing.collate`.

    Returns:
        logits [tokens,vocab], labels [tokens], and the row [turns] of them before each answer's first token.
    """
    inputs = {k: v for k, v in batch.items() if k not in EXTRAS}
    hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
    wanted, labels, first = answer_rows(batch)
    return model.get_output_embeddings()(hidden[wanted]), labels, first


def packed_batch(samples: Sequence[tuple[Packed, Sequence[int]]]) -> dict[str, Tensor]:
    """Packed batch plus `items` [questions], the positions of its questions in order, and `turns` [answer tokens]:
    which of the batch's turns each belongs to."""
    batch = collate([packed for packed, _ in samples])
    answered = batch["labels"] != IGNORE
    rows, segments = answered.nonzero()[:, 0], batch["segments"][answered]
    sizes = torch.tensor([len(packed.first) for packed, _ in samples])
    starts = sizes.cumsum(0) - sizes
    items = torch.tensor([i for _, positions in samples for i in positions])
    return {**batch, "items": items, "turns": starts[rows] + segments - 1}


class PackedTask(Task):
    """Questions whose answers are read from the log-probabilities of given words.

    An example is a picture with all turns of its questions: the right answer of each, or every candidate of each.
    """

    def unread(self, batch: Mapping[str, Any]) -> list[Record]:
        """Records of the batch's questions that could not be asked."""
        return []

    @abstractmethod
    def judge(
        self, batch: Mapping[str, Tensor], log_probs: Tensor, labels: Tensor, first: Tensor
    ) -> tuple[list[Record], list[int]]:
        """A record for each of the batch's `items`, and which of the batch's turns is its right answer.

        Args:
            batch: from `packed_batch`.
            log_probs: [answer tokens,vocab] before each answer token.
            labels: [answer tokens], those tokens.
            first: [turns] row of the first token of each answer.
        """

    def answer(
        self, model: PreTrainedModel, batch: Mapping[str, Any], dense: LogProbs | None
    ) -> tuple[list[Record], dict[int, Tensor]]:
        """Records of the batch's questions, and the log-probabilities on their right answers."""
        logits, labels, first = answer_logits(model, batch)
        return self.read(batch, logits.float().log_softmax(-1), labels, first, dense)

    def read(
        self, batch: Mapping[str, Any], log_probs: Tensor, labels: Tensor, first: Tensor, dense: LogProbs | None
    ) -> tuple[list[Record], dict[int, Tensor]]:
        """The same from log-probabilities [answer tokens,vocab], wherever they come from."""
        records, right = self.judge(batch, log_probs, labels, first)
        turns = batch["turns"].to(labels.device)
        counted = torch.isin(turns, torch.tensor(right, device=turns.device))
        lengths = torch.bincount(turns, minlength=len(first))[torch.tensor(right, device=turns.device)].tolist()
        own, labels = log_probs[counted], labels[counted]
        positions = [record.position for record in records]
        if dense is not None:
            reference = torch.cat([dense[position] for position in positions]).to(own.device)
            records = _compared(records, reference, own, labels, lengths)
        return records, dict(zip(positions, own.split(lengths), strict=True))


def _compared(
    records: Sequence[Record], dense: Tensor, own: Tensor, labels: Tensor, lengths: Sequence[int]
) -> list[Record]:
    """Records with the distance to the dense model; `lengths` of the tokens belong to each."""
    means = answer_means(kl_divergence(dense, own), lengths).tolist()
    sums = token_sums(dense, own, labels).cpu().split(list(lengths))
    return [
        replace(record, kl=mean, fidelity=(len(part), *part.sum(0).tolist()))
        for record, mean, part in zip(records, means, sums, strict=True)
    ]


def update_by_kind(
    metrics: Mapping[str, SampleTable], records: Sequence[Record], asked: Sequence[tuple[str, str]]
) -> None:
    """Score each answer by the metric of its question's kind.

    Args:
        metrics: by kind.
        records: answers.
        asked: kind and right answer of every question, by position.
    """
    for kind, metric in metrics.items():
        own = [record for record in records if asked[record.position][0] == kind]
        positions = torch.tensor([record.position for record in own], dtype=torch.int64)
        metric.update(positions, [record.reply for record in own], [asked[record.position][1] for record in own])


def answer_means(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Mean of [tokens] over each answer: one after another, each as long as `lengths` says."""
    return torch.segment_reduce(values, "mean", lengths=torch.tensor(lengths, device=values.device))
