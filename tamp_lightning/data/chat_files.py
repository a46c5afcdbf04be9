"""A file of conversations, one sample a row, with the media its rows name."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import ProcessorMixin

from tamp_lightning.data.calibration import Messages, Sample, SampleList
from tamp_lightning.data.chats import Chat, read_chat
from tamp_lightning.data.draw import choose
from tamp_lightning.data.media import check_opens, read_frames, read_picture, read_sound
from tamp_lightning.data.readers.item import Bad, BadRow
from tamp_lightning.data.readers.tables import json_lines, json_rows
from tamp_lightning.errors import InputError

BadRows = Literal["refuse", "skip"]
FRAMES = 16  # of a video that is decoded here; as many as VideoLLaMA2.1 looks at
REMEDY = "bad_rows: skip leaves such rows out and counts them"
REASONS = 3


class ChatFile:
    """The rows of a json or jsonl file.

    Args:
        path: the file.
        folder: of the media.
        processor: what the samples are made for; see `sources.from_llava_json`.

    Attributes:
        bad: rows that were found bad and left out, in the order they were found.

    Raises:
        InputError: the file is missing, no json, or has no row.
    """

    def __init__(self, path: Path, folder: Path, processor: ProcessorMixin | None) -> None:
        self.path, self.folder, self.processor = path, folder, processor
        try:
            self.rows = list(json_lines(path) if path.suffix == ".jsonl" else json_rows(path))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from None
        if not self.rows:
            raise InputError(f"{path} has no rows")
        self.bad: list[Bad] = []
        self._left_out: set[int] = set()

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, count: int | None, seed: int) -> SampleList:
        """`count` samples without replacement, or all.

        Raises:
            InputError: there are too few, or one of them is bad.
        """
        chosen = self._checked(choose(len(self), len(self) if count is None else count, seed, str(self.path)))
        return SampleList(len(chosen), lambda index: self.sample(chosen[index]))

    def draw_good(self, count: int | None, seed: int) -> SampleList:
        """`count` samples without replacement out of the rows that are not bad, or all of these; warns of the others.

        Raises:
            InputError: there are too few.
        """
        good = self._good()
        if count is None:
            self._tell()
            return SampleList(len(good), lambda index: self._sample_or_next(good, index), self.bad)
        name = f"{self.path} without its bad rows"
        chosen = self._readable(good, choose(len(good), count, seed, name), seed)
        self._tell()
        return SampleList(count, lambda index: self.sample(chosen[index]), self.bad)

    def chat(self, number: int) -> tuple[Chat, dict[str, list[Path]]]:
        """A row in chat form and the files it names, which exist.

        Raises:
            BadRow: it is in no known form, or a file is missing; the message names the place.
        """
        place, row = self.rows[number]
        try:
            if isinstance(row, BadRow):
                raise row
            chat = read_chat(row)
            return chat, {kind: [self._file(kind, name) for name in names] for kind, names in chat.media.items()}
        except BadRow as error:
            raise BadRow(f"{place}: {error}") from None

    def _file(self, kind: str, name: str) -> Path:
        if "://" in name.removeprefix("file://") or name.startswith("data:"):
            raise BadRow(f"{kind} {name[:60]!r} is an address: download it and name the file")
        file = self.folder / name.removeprefix("file://")
        if not file.exists():
            raise BadRow(f"cannot read {kind} {file}: there is no such file")
        return file

    def sample(self, number: int) -> Sample:
        """A sample with its media read, or, where the processor reads them, found.

        Raises:
            BadRow: the row is bad, or a file is missing or cannot be read; the message names the place.
        """
        chat, files = self.chat(number)
        try:
            return self._read(number, chat.messages, files)
        except ValueError as error:
            raise BadRow(f"{self.rows[number][0]}: {error}") from None

    def _read(self, number: int, messages: Messages, files: dict[str, list[Path]]) -> Sample:
        pictures = [read_picture(file) for file in files["image"]]
        listener = getattr(self.processor, "feature_extractor", None)
        frames_only = hasattr(self.processor, "video_processor") or bool(files["audio"])
        videos: list[Any] = [_frames(file) if frames_only else str(file) for file in files["video"]]
        if listener is None:
            return Sample(number, messages, pictures, videos, [str(file) for file in files["audio"]])
        sounds = [read_sound(file, listener.sampling_rate) for file in files["audio"] or files["video"]]
        return Sample(number, messages if files["audio"] else _heard(messages), pictures, videos, sounds)

    def _checked(self, numbers: Sequence[int]) -> list[int]:
        """The same numbers.

        Raises:
            BadRow: a row of the file is no object, or one of these rows is bad.
        """
        for place, row in self.rows:
            if isinstance(row, BadRow):
                raise BadRow(f"{place}: {row} ({REMEDY})")
        for number in numbers:
            try:
                self.chat(number)
            except BadRow as error:
                raise BadRow(f"{error} ({REMEDY})") from None
        return list(numbers)

    def _good(self) -> list[int]:
        """Numbers of all rows whose form is right and whose files exist; the others are noted.

        Raises:
            InputError: there is none.
        """
        found = [number for number in range(len(self)) if self._is_good(number)]
        if not found:
            raise InputError(f"{self.path} has no usable row ({len(self.bad)} bad, first {self._told(1)})")
        return found

    def _is_good(self, number: int, *, opened: bool = False) -> bool:
        try:
            files = self.chat(number)[1]
            if opened:
                self.sample(number)
                for file in [*files["video"], *files["audio"]]:
                    check_opens(file)
        except ValueError as error:
            self._note(number, error)
            return False
        return True

    def _note(self, number: int, error: ValueError) -> None:
        place = self.rows[number][0]
        if number not in self._left_out:
            self._left_out.add(number)
            self.bad.append(Bad(place, str(error).removeprefix(f"{place}: ")))

    def _readable(self, good: Sequence[int], drawn: Sequence[int], seed: int) -> list[int]:
        """The rows drawn, those with damaged media replaced by others out of `good`, in ascending order.

        Raises:
            InputError: too few are left.
        """
        taken = set(drawn)
        others = [number for number in good if number not in taken]
        random.Random(seed).shuffle(others)
        found: list[int] = []
        for number in [*drawn, *others]:
            if len(found) < len(drawn) and self._is_good(number, opened=True):
                found.append(number)
        if len(found) < len(drawn):
            raise InputError(f"{len(drawn)} samples wanted, {self.path} has {len(found)} that can be read")
        return sorted(found)

    def _sample_or_next(self, good: Sequence[int], index: int) -> Sample:
        """The sample of the index-th good row, or, its media being damaged, of the next that can be read.

        Raises:
            BadRow: none can be read.
        """
        for number in (*good[index:], *good[:index]):
            try:
                return self.sample(number)
            except BadRow as error:
                if number not in self._left_out:
                    self._note(number, error)
                    warnings.warn(f"{error}: left out, the next row takes its place", stacklevel=2)
                last = error
        raise last

    def _tell(self) -> None:
        """Warn of the rows left out, if any: how many, and the first three reasons."""
        warn_of(self.bad, str(self.path))

    def _told(self, count: int) -> str:
        return told(self.bad[:count])


def told(bad: Sequence[Bad]) -> str:
    """Places and reasons in one line."""
    return "; ".join(f"{row.place}: {row.reason}" for row in bad)


def warn_of(bad: Sequence[Bad], where: str) -> None:
    """Warn of rows left out, if any: how many, and the first three reasons."""
    if bad:
        warnings.warn(f"{where}: {len(bad)} bad rows are left out, first {told(bad[:REASONS])}", stacklevel=2)


def _frames(file: Path) -> np.ndarray:
    """Frames of a video, uint8 [frames,h,w,3]."""
    return np.stack([np.asarray(picture) for picture in read_frames(file, FRAMES).pictures])


def _heard(messages: Messages) -> Messages:
    """The same turns with a sound after every video."""
    after = {"video": [{"type": "audio"}]}
    return [
        {**message, "content": [p for part in message["content"] for p in (part, *after.get(part["type"], []))]}
        for message in messages
    ]
