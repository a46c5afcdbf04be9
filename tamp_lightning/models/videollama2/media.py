"""Read video and sound files with PyAV, which is imported only when a file is opened."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.models.videollama2.frames import frame_range, sample_frames
from tamp_lightning.models.videollama2.sound import SAMPLE_RATE
from tamp_lightning.pictures import to_rgb, upright

FOLDER_FPS = 3.0  # a folder of pictures counts as a video at this rate
_DAMAGED = 0.9  # a file that yields fewer of its frames than this is called damaged


def read_image(path: Path) -> Image.Image:
    """A picture by the rules of `to_rgb`.

    Raises:
        InputError: it is missing, no picture, or of a mode without a scale; the message names the file.
    """
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a picture: {_one_line(error)}") from None


def read_video(path: Path, wanted: int, start: float | None = None, end: float | None = None) -> list[Image.Image]:
    """``wanted`` frames, evenly spread, of a video file or a folder of pictures.

    Args:
        path: the file or folder.
        wanted: number of frames.
        start: begin there (seconds), None = at the start.
        end: end there (seconds), None = at the end.

    Raises:
        InputError: missing, empty or damaged file, or a range without frames; the message names the file.
    """
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        return [read_image(files[k]) for k in _choose(path, len(files), FOLDER_FPS, wanted, start, end)]
    with _open(path) as container:
        fps = float(_stream(container, "video", path).average_rate or 0) or 25.0
        count = sum(1 for packet in container.demux(video=0) if packet.size)
    chosen = _choose(path, count, fps, wanted, start, end)
    frames, seen = _decode(path, set(chosen))
    if len(frames) < len(set(chosen)):  # the file ends early
        if seen < _DAMAGED * count:
            raise InputError(f"{path} is damaged: only {seen} of its {count} frames can be decoded")
        # A few frames at the edges may need neighbours that were cut off: the others are the video.
        chosen = _choose(path, seen, fps, wanted, start, end)
        frames, _ = _decode(path, set(chosen))
    return [frames[k] for k in chosen]


def read_sound(path: Path) -> tuple[Tensor, int]:
    """First channel of a sound file, [n] float64 in -1..1, and its sampling rate.

    Raises:
        InputError: missing, empty or damaged file, or no sound in it; the message names the file.
    """
    with _open(path) as container:
        stream = _stream(container, "audio", path)
        rate = int(stream.rate)
        parts = [_first_channel(frame) for frame in container.decode(stream)]
    if not sum(map(len, parts)):
        raise InputError(f"{path} has no samples in its sound track")
    return torch.from_numpy(np.concatenate(parts)), rate


def read_sound_of_video(path: Path) -> Tensor | None:
    """A video's sound, mixed to mono at 16 kHz with 16 bits, [n] float64 in -1..1; None if it has no sound track.

    Raises:
        InputError: missing, empty or damaged file; the message names it.
    """
    if path.is_dir():
        return None
    with _open(path) as container:
        if not container.streams.audio:
            return None
        to_mono = _av().AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        frames = [out for frame in container.decode(audio=0) for out in to_mono.resample(frame)]
        frames += to_mono.resample(None)
    if not frames:
        return None
    samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    return torch.from_numpy(samples.astype(np.float64) / 2**15) if samples.size else None


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "video and sound files are read with PyAV: pip install 'tamp-lightning[video]'", name="av"
        ) from None
    return av


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """The opened file; whatever fails while it is read becomes one line that names it."""
    av = _av()
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    if not path.stat().st_size:
        raise InputError(f"{path} is empty")
    try:
        with av.open(str(path)) as container:
            yield container
    except av.FFmpegError as error:
        raise InputError(f"{path} is damaged or no video or sound: {_one_line(error)}") from None


def _stream(container: Any, kind: str, path: Path) -> Any:
    streams = getattr(container.streams, kind)
    if not streams:
        raise InputError(f"{path} has no {kind} track")
    return streams[0]


def _choose(path: Path, count: int, fps: float, wanted: int, start: float | None, end: float | None) -> list[int]:
    if not count:
        raise InputError(f"{path} has no frames")
    try:
        inside = frame_range(count, fps, start, end)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return [inside[k] for k in sample_frames(len(inside), wanted)]


def _decode(path: Path, wanted: Collection[int]) -> tuple[dict[int, Image.Image], int]:
    """The wanted frames by index, and how many frames were decoded until all were found or the file ended."""
    frames: dict[int, Image.Image] = {}
    seen = 0
    with _open(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            if seen in wanted:
                frames[seen] = upright(frame)
            seen += 1
            if len(frames) == len(wanted):
                break
    return frames, seen


def _first_channel(frame: Any) -> np.ndarray:
    """First channel of decoded sound as [n] float64 in -1..1; samples are [channels,n], or packed in one row."""
    samples = frame.to_ndarray()
    row = samples[0] if frame.format.is_planar else samples[0, :: frame.layout.nb_channels]
    if row.dtype == np.uint8:
        return (row.astype(np.float64) - 128.0) / 128.0
    scale = 2.0 ** (8 * row.dtype.itemsize - 1) if np.issubdtype(row.dtype, np.integer) else 1.0
    return row.astype(np.float64) / scale
