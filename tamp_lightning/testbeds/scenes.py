"""Seeded pictures of one to four coloured shapes, some with a written digit or word: what they show, and the drawing.

Every picture follows from its split and number alone, so nothing is stored and no two splits share a picture.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from tamp_lightning.data.easy_vqa import COLOURS, SHAPES

SceneSplit = Literal["train", "calibration", "selection", "test"]
DIGITS = tuple("0123456789")
WORDS = ("cat", "dog", "sun", "tree", "fish", "bird", "car", "book", "star", "moon")
SIZES = ("small", "large")
PLACES = ("top left", "top right", "bottom left", "bottom right")
SIDE = 64
RGB = {
    "black": (0, 0, 0),
    "blue": (0, 0, 255),
    "brown": (165, 42, 42),
    "gray": (128, 128, 128),
    "green": (0, 255, 0),
    "red": (255, 0, 0),
    "teal": (0, 128, 128),
    "yellow": (255, 255, 0),
}
"""As in easy-VQA's pictures."""


@dataclass(frozen=True)
class Thing:
    """One coloured shape in a quarter of the picture."""

    shape: str
    colour: str
    size: str
    place: int
    """0 to 3, rows first; see `PLACES`."""


@dataclass(frozen=True)
class Writing:
    """A digit in one quarter, or a word in the upper (place 0) or lower (place 2) half."""

    text: str
    colour: str
    place: int

    @property
    def is_digit(self) -> bool:
        """Whether it is a digit rather than a word."""
        return self.text in DIGITS


@dataclass(frozen=True)
class Scene:
    """What one picture shows."""

    split: SceneSplit
    number: int
    things: tuple[Thing, ...]
    writing: Writing | None


def scene(split: SceneSplit, number: int) -> Scene:
    """What picture `number` of a split shows: one to four things alike often, writing where there is room."""
    rng = random.Random(f"scene-{split}-{number}")
    count = rng.randint(1, 4)
    kinds: list[str] = ["none", "digit", "word"] if count < 3 else ["none", "digit"] if count == 3 else ["none"]
    kind = rng.choice(kinds)
    free = list(range(4))
    writing: Writing | None = None
    if kind == "digit":
        writing = Writing(rng.choice(DIGITS), rng.choice(COLOURS), free.pop(rng.randrange(4)))
    elif kind == "word":
        place = rng.choice((0, 2))
        writing = Writing(rng.choice(WORDS), rng.choice(COLOURS), place)
        free = [p for p in free if p // 2 != place // 2]
    places = rng.sample(free, count)
    shared = rng.choice(COLOURS) if rng.random() < 0.5 else None  # two of one colour are as likely as two colours
    things = tuple(Thing(rng.choice(SHAPES), shared or rng.choice(COLOURS), rng.choice(SIZES), p) for p in places)
    return Scene(split, number, things, writing)


def draw_scene(shown: Scene) -> Image.Image:
    """The picture, 64 by 64 pixels: shapes and writing jittered inside their quarters on a nearly white ground."""
    rng = random.Random(f"pixels-{shown.split}-{shown.number}")
    image = Image.new("RGB", (SIDE, SIDE), tuple(rng.randint(228, 255) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for thing in shown.things:
        _draw_thing(pen, thing, rng)
    if shown.writing is not None:
        _draw_writing(pen, shown.writing, rng)
    return image


def _centre(place: int, rng: random.Random, jitter: int) -> tuple[int, int]:
    x, y = 16 + 32 * (place % 2), 16 + 32 * (place // 2)
    return x + rng.randint(-jitter, jitter), y + rng.randint(-jitter, jitter)


def _draw_thing(pen: ImageDraw.ImageDraw, thing: Thing, rng: random.Random) -> None:
    half = rng.randint(11, 13) if thing.size == "large" else rng.randint(5, 6)
    x, y = _centre(thing.place, rng, 2 if thing.size == "large" else 6)
    fill = RGB[thing.colour]
    if thing.shape == "circle":
        pen.ellipse((x - half, y - half, x + half, y + half), fill=fill)
    elif thing.shape == "rectangle":
        short = half - rng.randint(0, half // 3)
        wide, high = rng.choice(((half, short), (short, half)))
        pen.rectangle((x - wide, y - high, x + wide, y + high), fill=fill)
    else:
        up = rng.choice((-1, 1))
        corners = [(x, y + up * half), (x - half, y - up * half), (x + half, y - up * half)]
        pen.polygon([(cy - y + x, cx - x + y) for cx, cy in corners] if rng.random() < 0.5 else corners, fill=fill)


def _draw_writing(pen: ImageDraw.ImageDraw, writing: Writing, rng: random.Random) -> None:
    if writing.is_digit:
        centre, font = _centre(writing.place, rng, 3), _font(rng.randint(22, 28))
    else:
        centre, font = (32 + rng.randint(-2, 2), 16 + 32 * (writing.place // 2) + rng.randint(-3, 3)), _font(21)
    pen.text(centre, writing.text, fill=RGB[writing.colour], font=font, anchor="mm")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans-Bold.ttf"), size)
