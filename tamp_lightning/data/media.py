"""Pictures, videos, sounds and subtitles as a processor takes them. Videos and sounds need PyAV (extra `video`)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tamp_lightning.errors import InputError
from tamp_lightning.pictures import to_rgb, upright

FRAME_FOLDER_RATE = 3.0
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".gif")
INSTALL = "pip install 'tamp-lightning[video]'"
_SUBTITLE_MARKUP = re.compile(r"</?(?:font|[ibus])\b[^<>]*>|\{\\[^{}]*\}", re.IGNORECASE)
_SUBTITLE_TIME = re.compile(r"(\d+):(\d+):(\d+)[,.](\d+)\s*-->\s*(\d+):(\d+):(\d+)[,.](\d+)")


class BadMedia(InputError):
    """A file, or bytes, that cannot be read as what they should be."""


@dataclass(frozen=True)
class Frames:
    """Frames of a video, in order."""

    pictures: list[Image.Image]
    times: list[float]
    """Seconds from the start of the video."""


class Subtitle(NamedTuple):
    """One line shown from `start` to `end`, in seconds."""

    start: float
    end: float
    text: str


def read_picture(content: Path | bytes) -> Image.Image:
    """A picture file, or its bytes, fully decoded and by the rules of `to_rgb`.

    Raises:
        BadMedia: it is missing, cut off, no picture, or of a mode without a scale.
    """
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as picture:
            return to_rgb(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadMedia(f"cannot read picture {_name(content)}: {error}") from None


def middles(start: float, end: float, count: int) -> list[float]:
    """Middle of each of `count` equal parts of the time from `start` to `end`."""
    return [start + (end - start) * (k + 0.5) / count for k in range(count)]


def read_frames(path: Path, count: int, start: float | None = None, end: float | None = None) -> Frames:
    """`count` frames, each from the middle of one of as many equal parts of the video.

    Args:
        path: a video file, or a folder of frames in the order of their names, three a second as TVQA's.
        count: how many frames; a video with fewer gives some of them more than once.
        start: seconds to begin at; default: the video's start.
        end: seconds to stop at; default: its end.

    Raises:
        BadMedia: it is missing, no video, or ends before `start`.
        FileNotFoundError: PyAV is not installed.
    """
    if path.is_dir():
        return _frames_of_folder(path, count, start, end)
    with _opened(path) as container:
        if not container.streams.video:
            raise BadMedia(f"{path} has no video stream")
        stream = container.streams.video[0]
        length = _seconds(container, stream)
        times = middles(*_bounds(path, length, start, end), count)
        frames = [_frame_at(container, stream, time) for time in times]
    if any(frame is None for frame in frames):
        raise BadMedia(f"cannot read video {path}: it holds no frame at {times[frames.index(None)]:.2f} s")
    return Frames(frames, times)  # type: ignore[arg-type]


def read_sound(content: Path | bytes, rate: int) -> np.ndarray:
    """The sound of an audio or video file as mono, resampled.

    Returns:
        float32[samples] in [-1, 1], `rate` samples a second.

    Raises:
        BadMedia: it is missing, cut off, or has no sound.
        FileNotFoundError: PyAV is not installed.
    """
    with _opened(content) as container:
        import av

        if not container.streams.audio:
            raise BadMedia(f"{_name(content)} has no sound")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        decoded = [*container.decode(audio=0), None]
        parts = [part.to_ndarray()[0] for frame in decoded for part in resampler.resample(frame)]
    if not parts:
        raise BadMedia(f"{_name(content)} has no sound")
    return np.concatenate(parts).astype(np.float32)


def check_opens(path: Path) -> None:
    """Decode the beginning of a video or sound file, for those who hand its name on to a processor.

    Raises:
        BadMedia: it is missing, cut off, or neither.
        FileNotFoundError: PyAV is not installed.
    """
    if path.is_dir():
        return
    with _opened(path) as container:
        if not any(True for _ in container.decode(container.streams.best("video") or container.streams.best("audio"))):
            raise BadMedia(f"{path} is neither video nor sound")


def read_subtitles(path: Path) -> list[Subtitle]:
    """Lines of an .srt file without markup such as `<font ...>`; line breaks within one become spaces.

    Raises:
        BadMedia: it is missing or no text.
    """
    try:
        blocks = re.split(r"\n\s*\n", path.read_text(encoding="utf-8-sig").replace("\r\n", "\n").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise BadMedia(f"cannot read subtitles {path}: {error}") from None
    found = []
    for block in blocks:
        time = _SUBTITLE_TIME.search(block)
        if time:
            h, m, s, ms, h2, m2, s2, ms2 = map(int, time.groups())
            text = " ".join(_SUBTITLE_MARKUP.sub("", block[time.end() :]).split())
            found.append(Subtitle(h * 3600 + m * 60 + s + ms / 1000, h2 * 3600 + m2 * 60 + s2 + ms2 / 1000, text))
    return found


def subtitles_at(lines: Sequence[Subtitle], times: Sequence[float]) -> str:
    """The line shown at each time, one a line, times without one left out (as VideoLLaMA2's VideoMME script does)."""
    shown = (next((line.text for line in lines if line.start < time < line.end), "") for time in times)
    return "\n".join(text for text in shown if text)


def _name(content: Path | bytes) -> str:
    return f"of {len(content)} bytes" if isinstance(content, bytes) else str(content)


@contextmanager
def _opened(content: Path | bytes) -> Iterator[Any]:
    try:
        import av
    except ImportError:
        raise FileNotFoundError(f"reading videos and sounds needs PyAV: {INSTALL}") from None
    try:
        with av.open(io.BytesIO(content) if isinstance(content, bytes) else str(content)) as container:
            yield container
    except BadMedia:
        raise
    except (av.FFmpegError, OSError) as error:
        raise BadMedia(f"cannot read {_name(content)}: {error}") from None


def _seconds(container: Any, stream: Any) -> float:
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    # in microseconds; Matroska states it for the file only
    return (container.duration or 0) / 1e6


def _bounds(path: Path, length: float, start: float | None, end: float | None) -> tuple[float, float]:
    low, high = start or 0.0, length if end is None else min(end, length)
    if not 0 <= low < high:
        raise BadMedia(f"{path} lasts {length:.2f} s: nothing between {low} and {end}")
    return low, high


def _frame_at(container: Any, stream: Any, time: float) -> Image.Image | None:
    """The frame shown at `time`: decoding starts at the key frame before it."""
    offset = stream.start_time or 0
    container.seek(int(time / stream.time_base) + offset, stream=stream, backward=True)
    shown = None
    for frame in container.decode(stream):
        if shown is not None and frame.pts is not None and (frame.pts - offset) * stream.time_base > time:
            break
        shown = frame
    return None if shown is None else upright(shown)


def _frames_of_folder(path: Path, count: int, start: float | None, end: float | None) -> Frames:
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
    if not files:
        raise BadMedia(f"{path} holds no frames ({', '.join(PICTURES)})")
    times = middles(*_bounds(path, len(files) / FRAME_FOLDER_RATE, start, end), count)
    chosen = [files[min(int(time * FRAME_FOLDER_RATE), len(files) - 1)] for time in times]
    return Frames([read_picture(file) for file in chosen], times)
