"""From an item to what a processor takes: messages and media."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from transformers import ProcessorMixin

from tamp_lightning.benchmarks.base import Benchmark
from tamp_lightning.data.calibration import spelled_out
from tamp_lightning.data.media import (
    BadMedia,
    Frames,
    read_frames,
    read_picture,
    read_sound,
    read_subtitles,
    subtitles_at,
)
from tamp_lightning.data.readers.item import Item, Items, Kind, Media
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.reasoning import template_options

MARK = "<image>"
SUBTITLES = "This video's subtitles are listed below:\n{}\n"
PARTS = {"image": "image_processor", "video": "video_processor", "audio": "feature_extractor"}


@dataclass
class Example:
    """One question ready for a processor, or the reason why it is not."""

    position: int
    messages: list[dict[str, Any]] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)
    videos: list[np.ndarray | dict[str, Any]] = field(default_factory=list)
    """uint8 [frames, height, width, 3] each, or the file for a processor that opens files itself."""
    sounds: list[np.ndarray | Path] = field(default_factory=list)
    """float32 [samples] each, or the file."""
    bad: str | None = None


def accepts(processor: ProcessorMixin, kind: Kind) -> bool:
    """Whether a processor takes pictures, videos or sounds."""
    return opens_media(processor) or getattr(processor, PARTS[kind], None) is not None


def opens_media(processor: ProcessorMixin) -> bool:
    """Whether a processor reads files itself, as VideoLLaMA2's does: a video with its sound, at frames of its own."""
    return getattr(processor, "opens_media", False)


def check_accepts(benchmark: Benchmark, items: Items, processor: ProcessorMixin, frames_as_pictures: bool) -> None:
    """Refuse a benchmark whose media the processor does not take.

    Raises:
        InputError: names the kind and the remedy.
    """
    for kind in sorted({media.kind for item in items.items for media in item.media}):
        if kind == "video" and frames_as_pictures and accepts(processor, "image"):
            continue
        if not accepts(processor, kind):
            remedy = "frames_as_pictures: true shows frames as pictures" if kind == "video" else "choose another model"
            raise InputError(
                f"{benchmark.name} asks about {kind}, which {type(processor).__name__} does not take: {remedy}"
            )


class Examples(Dataset[Example]):
    """Items read on demand, in the order of `positions`.

    Args:
        benchmark: gives the prompt.
        items: its questions.
        positions: which of them.
        processor: the model's.
        frames: frames of a video.
        frames_as_pictures: give a video's frames as pictures.
        skip_bad: unreadable media give an example with the reason instead of an error.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        items: Items,
        positions: Sequence[int],
        processor: ProcessorMixin,
        *,
        frames: int = 8,
        frames_as_pictures: bool = False,
        skip_bad: bool = False,
    ) -> None:
        self.benchmark, self.items, self.positions, self.processor = benchmark, items, list(positions), processor
        self.frames, self.frames_as_pictures, self.skip_bad = frames, frames_as_pictures, skip_bad

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Example:
        position = self.positions[index]
        try:
            return self._example(position, self.items.items[position])
        except BadMedia as error:
            if self.skip_bad:
                return Example(position, bad=str(error))
            place = self.items.places[position]
            raise BadMedia(f"{place}: {error} (skip_bad: true leaves such rows out and counts them)") from None

    def _example(self, position: int, item: Item) -> Example:
        example, text = Example(position), self.benchmark.prompt(item)
        parts: list[Kind] = []
        for media in item.media:
            if media.kind == "image":
                example.images.append(read_picture(_content(media)))
                parts.append("image")
            elif media.kind == "audio":
                example.sounds.append(self._sound(media))
                parts.append("audio")
            else:
                text = self._add_video(example, parts, media, item) + text
        example.messages = [{"role": "user", "content": _content_parts(text, parts)}]
        return example

    def _add_video(self, example: Example, parts: list[Kind], media: Media, item: Item) -> str:
        """Append a video to the example; what stands before its question."""
        if isinstance(media.content, bytes) or callable(media.content):
            raise BadMedia("a video has to be a file")
        if opens_media(self.processor) and media.content.is_file() and not self.frames_as_pictures:
            example.videos.append({"video": media.content, "start": media.start, "end": media.end})
            parts.append("video")
            if not self.benchmark.subtitles:
                return ""
            count = self.processor.num_frames  # type: ignore[attr-defined]
            return self._subtitles(item, read_frames(media.content, count, media.start, media.end))
        frames = read_frames(media.content, self.frames, media.start, media.end)
        if self.frames_as_pictures:
            example.images += frames.pictures
            parts += ["image"] * len(frames.pictures)
        else:
            example.videos.append(np.stack([np.asarray(picture) for picture in frames.pictures]))
            parts.append("video")
        if self.benchmark.sound and accepts(self.processor, "audio"):
            example.sounds.append(self._sound(media))
            parts.append("audio")
        return self._subtitles(item, frames)

    def _subtitles(self, item: Item, frames: Frames) -> str:
        if not self.benchmark.subtitles:
            return ""
        lines = read_subtitles(item.subtitles) if item.subtitles else []
        return SUBTITLES.format(subtitles_at(lines, frames.times))

    def _sound(self, media: Media) -> np.ndarray | Path:
        content = _content(media)
        if opens_media(self.processor) and isinstance(content, Path):
            return content
        hears: Any = self.processor if opens_media(self.processor) else self.processor.feature_extractor
        return read_sound(content, hears.sampling_rate)


def _content(media: Media) -> Any:
    return media.content() if callable(media.content) else media.content


def _content_parts(text: str, media: list[Kind]) -> list[dict[str, str]]:
    """Media first and then the text; pictures where the text has `<image>`, if it does.

    Raises:
        BadMedia: the text has another number of `<image>` than there are pictures.
    """
    pieces = text.split(MARK)
    if len(pieces) == 1:
        return [{"type": str(kind)} for kind in media] + [{"type": "text", "text": text}]
    if media != ["image"] * (len(pieces) - 1):
        raise BadMedia(f"the text has {len(pieces) - 1} {MARK} for {len(media)} pictures")
    parts: list[dict[str, str]] = []
    for number, piece in enumerate(pieces):
        parts += [{"type": "image"}] if number else []
        parts += [{"type": "text", "text": piece}] if piece else []
    return parts


class LeftCollator:
    """Runs examples through the chat template and the processor, padded on the left.

    Args:
        processor: the model's.
        thinking: what a template that can switch reasoning off is told.
    """

    def __init__(self, processor: ProcessorMixin, thinking: bool = False) -> None:
        self.processor, self.options = processor, template_options(processor, thinking)

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """`positions` [B], model `inputs` of those that could be read (None if none could), and `bad` reasons."""
        good = [example for example in examples if example.bad is None]
        return {
            "positions": [example.position for example in good],
            "inputs": self._inputs(good) if good else None,
            "bad": {example.position: example.bad for example in examples if example.bad is not None},
        }

    def _inputs(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        chats = [spelled_out(e.messages, self.processor) for e in examples]
        options: dict[str, Any] = {"add_generation_prompt": True, **self.options}
        texts = [self.processor.apply_chat_template(chat, **options) for chat in chats]
        given = {
            "images": [image for e in examples for image in e.images],
            "videos": [video for e in examples for video in e.videos],
            "audio": [sound for e in examples for sound in e.sounds],
        }
        media = {name: value for name, value in given.items() if value}
        encoded = self.processor(text=texts, **media, padding=True, padding_side="left", return_tensors="pt")
        return {name: value for name, value in encoded.items() if isinstance(value, torch.Tensor)}
