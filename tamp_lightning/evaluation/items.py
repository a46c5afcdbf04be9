"""Questions of a public benchmark as a task."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import ProcessorMixin

from tamp_lightning.benchmarks.base import Benchmark, update
from tamp_lightning.benchmarks.chance import chance_level
from tamp_lightning.data.media import BadMedia, read_frames, read_picture
from tamp_lightning.data.readers.item import Item, Items
from tamp_lightning.evaluation.examples import Examples
from tamp_lightning.evaluation.predictions import digest
from tamp_lightning.evaluation.reasoning import template_options
from tamp_lightning.evaluation.records import Record
from tamp_lightning.evaluation.task import Task
from tamp_lightning.metrics import SampleTable

# raised when a change of ours changes predictions for equal inputs
REVISION = 2
SHOWN_FRAMES = 4
NAME_LENGTH = 12


@dataclass(frozen=True)
class GenerationOptions:
    """How questions are put to the model."""

    prompt: str = "protocol"
    """The benchmark's own wording (protocol), or what became of it (bare): a name, for the key of the answers."""
    new_tokens: int | None = None
    """Longest reply; default: the benchmark's own."""
    frames: int = 8
    frames_as_pictures: bool = False
    skip_bad: bool = False
    thinking: bool = False
    """Let a model reason whose chat template can switch that off."""


class ItemTask(Task):
    """Items of one benchmark, read on demand.

    Args:
        benchmark: what is asked, and how replies are scored.
        items: its questions.
        processor: the model's.
        options: how they are put.
        split: which part of the data they are.
    """

    def __init__(
        self, benchmark: Benchmark, items: Items, processor: ProcessorMixin, options: GenerationOptions, split: str = ""
    ) -> None:
        self.benchmark, self.items, self.processor, self.options = benchmark, items, processor, options
        self.name, self.split = benchmark.name, split
        self.examples = Examples(
            benchmark,
            items,
            range(len(items)),
            processor,
            frames=options.frames,
            frames_as_pictures=options.frames_as_pictures,
            skip_bad=options.skip_bad,
        )

    def unread(self, batch: Mapping[str, Any]) -> list[Record]:
        """Records of a batch's questions that could not be asked."""
        return [self.record(position, bad=reason) for position, reason in batch["bad"].items()]

    def record(self, position: int, reply: str = "", **more: Any) -> Record:
        """The record of a question."""
        return Record(position, self.items.items[position].id, reply, **more)

    def rows(self) -> list[dict[str, Any]]:
        """What is known of each question; `unit` is shared by rotations and pairs, which count once."""
        return [
            {
                "benchmark": self.name,
                "id": item.id,
                "picture": picture,
                "unit": item.circle or item.id,
                "place": place,
                "question": item.question,
                "prompt": self.benchmark.prompt(item),
                "options": list(item.options),
                "answer": _answer(item),
            }
            for item, place, picture in zip(self.items.items, self.items.places, self.pictures, strict=True)
        ]

    @cached_property
    def pictures(self) -> list[str]:
        """Name of the picture, video or sound of each question, the same for questions about the same one."""
        return [f"{self.name}/{_identity(item)}" for item in self.items.items]

    def metrics(self) -> Mapping[str, SampleTable]:
        """The benchmark's metric; none in a split without answers."""
        return {self.name: self.benchmark.metric(self.items.items)} if self.items.scored else {}

    def update(self, metrics: Mapping[str, SampleTable], records: Sequence[Record]) -> None:
        """Score replies; of a split without answers none can be."""
        if not self.items.scored:
            return
        metrics[self.name].cut(torch.tensor([r.position for r in records if r.cut], dtype=torch.int64))
        said = [record for record in records if not record.cut]
        if said:
            replies = [self.answer_of(record) for record in said]
            update(metrics[self.name], [r.position for r in said], replies, self.items.items)

    def answer_of(self, record: Record) -> str:
        """What the rules of the benchmark are to read of a reply."""
        return record.reply

    def chance(self) -> dict[str, float]:
        """Expected score of answers drawn at random."""
        return {self.name: chance_level(self.benchmark, self.items.items)}

    def headline(self, results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """The benchmark's headline; nothing where it is no share, as MME's perception."""
        if self.benchmark.units == "pair":
            return {}
        return {self.name: results[self.name][self.benchmark.headline]}

    def rules(self) -> dict[str, str]:
        """How rotations and pairs are counted."""
        return {self.name: self.benchmark.units}

    def inputs(self) -> dict[str, Any]:
        """What decides the answers beside the model."""
        asks_video = any(media.kind == "video" for item in self.items.items for media in item.media)
        options = self.options
        return {
            "revision": REVISION,
            "benchmark": self.name,
            "questions": questions_digest(self.benchmark, self.items),
            "answers": self.answers,
            "prompt": options.prompt,
            "new_tokens": None if self.answers == "likelihood" else options.new_tokens or self.benchmark.new_tokens,
            "frames": [options.frames, options.frames_as_pictures] if asks_video else None,
            "skip_bad": options.skip_bad,
            **template_options(self.processor, options.thinking),
        }

    def skipped(self) -> list[dict[str, str]]:
        """Rows that the reader left out."""
        return [{"place": bad.place, "reason": bad.reason} for bad in self.items.bad]

    def picture(self, name: Any) -> Image.Image | None:
        """The first picture of a question, or frames of its video side by side; None for sounds and what is broken."""
        item = self.items.items[self.pictures.index(name)]
        for media in item.media:
            try:
                if media.kind == "image":
                    return read_picture(media.content() if callable(media.content) else media.content)
                if media.kind == "video" and isinstance(media.content, Path):
                    return _side_by_side(read_frames(media.content, SHOWN_FRAMES, media.start, media.end).pictures)
            except BadMedia:
                return None
        return None


def questions_digest(benchmark: Benchmark, items: Items) -> str:
    """sha256 over everything that is asked: ids, prompts, answers, options, and which media."""
    rows = [
        [i.id, benchmark.prompt(i), i.target, i.options, [m.label for m in i.media], _subtitles(benchmark, i)]
        for i in items.items
    ]
    return digest([items.sha256, rows])


def _subtitles(benchmark: Benchmark, item: Item) -> str:
    path = item.subtitles if benchmark.subtitles else None
    return "None" if path is None else f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def spread(items: Items, limit: int | None) -> Items:
    """`limit` questions with all their rotations or pairs, evenly spread over the data; all for None."""
    circles = list(dict.fromkeys(item.circle or item.id for item in items.items))
    if limit is None or limit >= len(circles):
        return items
    wanted = {circles[k * len(circles) // limit] for k in range(limit)}
    kept = [n for n, item in enumerate(items.items) if (item.circle or item.id) in wanted]
    return replace(items, items=[items.items[n] for n in kept], places=[items.places[n] for n in kept])


def _answer(item: Item) -> str:
    if item.target is None:  # a test split, whose answers a server has
        return ""
    if isinstance(item.target, int):
        return item.options[item.target]
    return item.target if isinstance(item.target, str) else " | ".join(dict.fromkeys(item.target))


def _identity(item: Item) -> str:
    if not item.media:
        return item.circle or item.id
    content = item.media[0].content
    if isinstance(content, Path):
        return content.name
    return hashlib.sha256(content()).hexdigest()[:NAME_LENGTH]


def _side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    return Image.fromarray(np.concatenate([np.asarray(picture.convert("RGB")) for picture in pictures], axis=1))
