"""A benchmark: reader, prompt, answer rule and metric in one small object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tamp_lightning.benchmarks.submissions import Form
from tamp_lightning.data.readers.item import Item, Items, Source
from tamp_lightning.metrics import AnswerScore, ChoiceAccuracy, SampleTable

Metric = Callable[[Sequence[Item]], SampleTable]


@dataclass(frozen=True)
class Benchmark:
    """What is asked, how, and how replies are scored. Decoding is greedy."""

    name: str
    about: str
    """The protocol in one line."""
    source: Source
    """Where the data are on the hub."""
    read: Callable[[Source], Items]
    prompt: Callable[[Item], str]
    """Text of the one user turn; every `<image>` in it is a picture, without any the media come first."""
    metric: Metric
    """A fresh metric for a list of items, its rows being positions in it."""
    headline: str
    """The figure of the metric that stands for the benchmark."""
    new_tokens: int = 16
    """Longest reply."""
    candidates: Callable[[Item], Sequence[str]] | None = None
    """Replies among which the likeliest is the answer, in scoring by likelihood; None where there is no closed set."""
    answer_index: Callable[[Item], int] | None = None
    """Number of the right candidate."""
    continuations: Callable[[Item], Sequence[str]] | None = None
    """What the likelihood is taken of, one for each candidate; default: the candidates."""
    subtitles: bool = False
    """Whether a video's subtitles stand before the question."""
    units: Literal["each", "all", "pair"] = "each"
    """What counts once beside another model: each question, all rotations of one (right if all are), or a pair of
    MME's (mean of both, and half of the score for both)."""
    submission: Form | None = None
    """Form in which its server takes the replies to a split without answers; None where there is no server."""
    sound: bool = False
    """Whether a video's sound is part of the question, for processors that take both."""


class ItemScore(AnswerScore):
    """An `AnswerScore` whose scorer sees the whole item instead of its references."""


def update(metric: SampleTable, positions: Sequence[int], replies: Sequence[str], items: Sequence[Item]) -> None:
    """Score replies to the items at `positions`.

    Args:
        metric: from `Benchmark.metric`, made of `items`.
        positions: which items were answered.
        replies: what was said, in the order of `positions`.
        items: all items of the benchmark.
    """
    index = torch.tensor(list(positions), dtype=torch.int64)
    asked = [items[position] for position in positions]
    table: Any = metric
    if isinstance(metric, ChoiceAccuracy):
        table.update(index, replies, torch.tensor([int(i.target) for i in asked]), [i.options for i in asked])  # type: ignore[arg-type]
    elif isinstance(metric, ItemScore):
        table.update(index, replies, asked)
    else:
        table.update(index, replies, [item.target for item in asked])
