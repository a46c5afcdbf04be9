"""Pictures, sound and mp4 files of procedural clips.

What is fixed is what is drawn and played: labels, pictures and samples. The bytes of a file, and what a decoder makes
of them, may differ between versions of the encoders.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tamp_lightning.testbeds.clips import Clip

SIDE = 96
FPS = 8
RATE = 16000
PALETTE = {"red": (215, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 220), "yellow": (230, 205, 50)}
_STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_FADE = 160
"""Samples over which a sound begins and ends."""


@dataclass(frozen=True)
class _Look:
    """What of a clip's pictures no question asks for."""

    radius: float
    reach: float
    offset: float
    background: tuple[int, int, int]
    tint: tuple[int, int, int]


def _look(clip: Clip) -> _Look:
    rng = random.Random(f"look/{clip.seed}")
    grey = rng.randrange(90)
    return _Look(
        radius=rng.uniform(0.19, 0.24) * SIDE,
        reach=rng.uniform(0.20, 0.28) * SIDE,
        offset=rng.uniform(-0.1, 0.1) * SIDE,
        background=(grey + rng.randrange(20), grey + rng.randrange(20), grey + rng.randrange(20)),
        tint=(rng.randint(-20, 20), rng.randint(-20, 20), rng.randint(-20, 20)),
    )


def frame_count(clip: Clip) -> int:
    """Number of pictures."""
    return round(clip.seconds * FPS)


def draw(clip: Clip, index: int) -> Image.Image:
    """Picture `index` of a clip, RGB, 96 pixels wide and high."""
    look, time = _look(clip), (index + 0.5) / frame_count(clip)
    dx, dy = _STEPS[clip.motion]
    along = (2 * time - 1) * look.reach
    x = SIDE / 2 + dx * along + abs(dy) * look.offset
    y = SIDE / 2 + dy * along + abs(dx) * look.offset
    colour = PALETTE[clip.colours[int(time >= clip.change)]]
    fill = tuple(min(max(c + t, 0), 255) for c, t in zip(colour, look.tint, strict=True))
    large = Image.new("RGB", (2 * SIDE, 2 * SIDE), look.background)
    pen = ImageDraw.Draw(large)
    for outline in _outlines(clip.shape, 2 * x, 2 * y, 2 * look.radius):
        pen.polygon(outline, fill=fill)
    return large.reduce(2)


def _outlines(shape: str, x: float, y: float, r: float) -> list[list[tuple[float, float]]]:
    """Polygons that together are the shape around (x, y)."""

    def turned(radii: list[float], start: float) -> list[tuple[float, float]]:
        steps = [start + 2 * math.pi * k / len(radii) for k in range(len(radii))]
        return [(x + p * math.cos(a), y + p * math.sin(a)) for p, a in zip(radii, steps, strict=True)]

    def box(a: float, b: float) -> list[tuple[float, float]]:
        return [(x - a, y - b), (x + a, y - b), (x + a, y + b), (x - a, y + b)]

    if shape == "circle":
        return [turned([r] * 48, 0.0)]
    if shape == "square":
        return [box(0.88 * r, 0.88 * r)]
    if shape == "cross":
        return [box(r, 0.3 * r), box(0.3 * r, r)]
    return [turned([1.15 * r, 0.48 * r] * 5, -math.pi / 2)]


def waveform(clip: Clip) -> np.ndarray:
    """The clip's sound: float32 [n] in -1..1 at 16 kHz."""
    rng = random.Random(f"voice/{clip.seed}")
    noise = np.random.default_rng(rng.getrandbits(64))
    total = round(clip.seconds * RATE)
    middle = round(total * clip.change)
    if clip.sounds[0] == clip.sounds[1]:
        return _voice(clip.sounds[0], total, rng, noise)
    return np.concatenate([
        _voice(clip.sounds[0], middle, rng, noise), _voice(clip.sounds[1], total - middle, rng, noise)
    ])  # fmt: skip


def _voice(sound: str, length: int, rng: random.Random, noise: np.random.Generator) -> np.ndarray:
    time = np.arange(length) / RATE

    def tones(base: float, parts: dict[float, float]) -> np.ndarray:
        return np.sum([a * np.sin(2 * np.pi * base * f * time + rng.uniform(0, 6.28)) for f, a in parts.items()], 0)

    if sound == "hum":
        wave = tones(rng.uniform(90, 140), {1: 1.0, 2: 0.5, 3: 0.25})
    elif sound == "bell":
        wave = tones(rng.uniform(1800, 2600), {1: 1.0, 2.4: 0.2})
    elif sound == "organ":
        wave = tones(rng.uniform(300, 450), {1: 1.0, 1.25: 1.0, 1.5: 1.0, 2: 0.5})
    else:
        wave = noise.standard_normal(length)
    wave *= rng.uniform(0.2, 0.5) / np.abs(wave).max()
    ramp = np.minimum(1, (np.arange(length) + 1) / _FADE)
    return (wave * ramp * ramp[::-1]).astype(np.float32)


def write_clip(clip: Clip, path: Path) -> None:
    """Write an mp4 file with pictures (MPEG-4, yuv420p) and sound (AAC, mono)."""
    import av

    with av.open(str(path), "w", format="mp4") as container:
        pictures = container.add_stream("mpeg4", rate=FPS)
        pictures.width = pictures.height = SIDE
        pictures.pix_fmt, pictures.bit_rate = "yuv420p", 600_000
        voice = container.add_stream("aac", rate=RATE, layout="mono")
        for index in range(frame_count(clip)):
            container.mux(pictures.encode(av.VideoFrame.from_image(draw(clip, index))))
        container.mux(pictures.encode())
        for part in _audio_frames(waveform(clip)):
            container.mux(voice.encode(part))
        container.mux(voice.encode())


def _audio_frames(samples: np.ndarray, size: int = 1024) -> Iterator[Any]:
    import av

    for start in range(0, len(samples), size):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + size], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE, start
        yield frame
