"""What is asked together: the questions of one benchmark, or of several about the same pictures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, Dataset, SequentialSampler
from transformers import PreTrainedModel

from tamp_lightning.evaluation.predictions import digest
from tamp_lightning.evaluation.records import Record
from tamp_lightning.metrics import SampleTable

LogProbs = Mapping[int, Tensor]
"""Position of a question -> float32 [answer tokens, vocab]: log-probabilities of one model before its answer."""


class Task(Dataset[Any]):
    """Items -> examples -> answers -> metric, for `scoring.EvaluationModule`.

    As a dataset it has one entry per example: what passes the model together, such as a picture with its questions.
    """

    name: str
    """Of the folder that answers are kept in."""
    split: Any
    """Which part of the data the questions are from."""
    answers: str
    """teacher_forced, likelihood or generate."""

    to_the_bit: bool = False
    """Whether answers are kept for equal batches, versions and hardware only, so that figures repeat to the bit."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Any: ...

    @abstractmethod
    def positions(self, index: int) -> Sequence[int]:
        """Questions of one example, by their position among all."""

    @abstractmethod
    def collate(self, samples: Sequence[Any]) -> dict[str, Any]:
        """A batch of examples, for `answer`."""

    @abstractmethod
    def answer(
        self, model: PreTrainedModel, batch: Mapping[str, Any], dense: LogProbs | None
    ) -> tuple[list[Record], dict[int, Tensor]]:
        """What a model says to the questions of a batch, and where tokens are compared, its log-probabilities.

        Args:
            model: the whole model.
            batch: from `collate`, on the model's device.
            dense: of the dense model, where the distance to it is wanted.
        """

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """What is known of each question: benchmark, id, picture (questions about one depend on each other), question,
        options, answer, and `unit` where several questions count as one."""

    @abstractmethod
    def metrics(self) -> Mapping[str, SampleTable]:
        """One fresh metric per benchmark, its rows being positions."""

    @abstractmethod
    def update(self, metrics: Mapping[str, SampleTable], records: Sequence[Record]) -> None:
        """Score records that answer their question."""

    @abstractmethod
    def chance(self) -> dict[str, float]:
        """Chance level of each benchmark: what a guesser reaches that never sees the picture."""

    @abstractmethod
    def headline(self, results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """The figure of each benchmark, between 0 and 1, that enters retention."""

    @abstractmethod
    def picture(self, name: Any) -> Image.Image | None:
        """What a report shows for `picture` of `rows`: the picture, or frames of the video side by side."""

    def figures(self, records: Mapping[int, Record]) -> dict[str, dict[str, float]]:
        """Further figures of each benchmark, from all records."""
        return {}

    def rules(self) -> dict[str, str]:
        """Benchmark -> how the scores of the questions of one unit become one (see `comparison.UNITS`)."""
        return {}

    def inputs(self) -> dict[str, Any]:
        """What decides the answers beside the model, as JSON values."""
        return {"questions": digest(self.rows())}

    def skipped(self) -> list[dict[str, str]]:
        """Rows of the source that are left out: place and reason."""
        return []

    def batches(self, size: int) -> Iterator[list[int]]:
        """Examples of each batch. It is the same for every number of processes, and so are the answers' bits."""
        yield from BatchSampler(SequentialSampler(range(len(self))), size, drop_last=False)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


def on_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch with its tensors on a device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
