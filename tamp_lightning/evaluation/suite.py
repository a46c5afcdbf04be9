"""What the engine asks of the questions of a test bed, whichever bed it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from PIL import Image
from torch import Tensor

from tamp_lightning.metrics import SampleTable


class Suite(Protocol):
    """Questions of one slice, in batches of packed sequences, scored teacher-forced."""

    @property
    def split(self) -> str:
        """Which part of the data the questions are from."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...

    @property
    def benchmarks(self) -> Sequence[str]:
        """Benchmark of each question of the slice."""

    @property
    def right(self) -> Sequence[str]:
        """Right answer to each question of the slice."""

    def collate(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        """A packed batch with `items`: positions in the slice of the questions in it."""

    def metrics(self) -> Mapping[str, SampleTable]:
        """One fresh metric per benchmark, its rows being positions in the slice."""

    def judge(
        self, batch: Mapping[str, Tensor], log_probs: Tensor, labels: Tensor, first: Tensor
    ) -> tuple[list[str], list[float]]:
        """Answer to each of the batch's `items`, and the right one's probability among those allowed.

        Args:
            batch: from `collate`.
            log_probs: [answer tokens,vocab] in front of each answer token.
            labels: [answer tokens], those tokens.
            first: [turns] row of the first token of each answer.
        """

    def counted(self, batch: Mapping[str, Tensor]) -> Tensor:
        """[answer tokens] bool: those that enter the distance to the dense model."""

    def floor(self) -> dict[str, float]:
        """Blind score of each benchmark."""

    def headline(self, results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """The one figure of each benchmark that enters retention."""

    def picture(self, number: int) -> Image.Image:
        """What stands in a report for the picture or clip with this number (`picture` in `rows`)."""

    def rows(self) -> list[dict[str, Any]]:
        """What is known of each question of the slice, for a table of predictions."""
