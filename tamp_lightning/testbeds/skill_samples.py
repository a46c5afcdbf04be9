"""Calibration samples for the second edition: conversations of its own kind, and captions of quite other pictures."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tamp_lightning.data.calibration import Sample
from tamp_lightning.data.chats import questions_on
from tamp_lightning.data.draw import Pool
from tamp_lightning.testbeds.scenes import SIDE
from tamp_lightning.testbeds.skills import easy_pictures, load, scene_pictures

GROUNDS = {
    "purple": (128, 0, 160),
    "orange": (255, 150, 30),
    "navy": (10, 20, 90),
    "olive": (110, 110, 20),
    "pink": (250, 160, 190),
    "violet": (170, 110, 230),
}
OBJECTS = ("bridge", "river", "candle", "garden", "window", "ladder", "pencil", "mirror", "basket", "engine")
OPENINGS = ("The image shows", "This is", "In the picture there is", "We can see")
CAPTIONS = 4096
"""How many different pictures there are to caption."""


def skill_pool(seed: int, turns: int, *, scenes: bool = True) -> Pool:
    """Conversations of up to `turns` questions, drawn by `seed`, about each picture of the calibration split; with
    scenes, these are two of three.

    Raises:
        FileNotFoundError: easy-VQA is not installed.
    """
    pool = easy_pictures("calibration", 150 if scenes else 250)
    pool += scene_pictures("calibration", 300) if scenes else []

    def make(position: int) -> Sample:
        name, posed = pool[position]
        asked = random.Random(f"{seed}/{name}").sample(posed, min(turns, len(posed)))
        messages = questions_on("image", ((q.prompt, q.answer) for q in asked))
        return Sample(position, messages, [load("calibration", name)])

    return Pool("skills", len(pool), make)


def caption_pool() -> Pool:
    """One descriptive sentence about a long word on a shaded ground: colours, words and wording no question has.

    The other source to calibrate on: least squares on the test's own task flatters methods that move weights.
    """

    def make(number: int) -> Sample:
        picture, text = caption(number)
        return Sample(number, questions_on("image", [("Describe the image in one sentence.", text)]), [picture])

    return Pool("captions", CAPTIONS, make)


def caption(number: int) -> tuple[Image.Image, str]:
    """Picture `number`, 64 by 64 pixels, and its description."""
    import matplotlib

    rng = random.Random(f"caption-{number}")
    ground, thing, lit = rng.choice(sorted(GROUNDS)), rng.choice(OBJECTS), rng.random() < 0.5
    image, target = Image.new("RGB", (SIDE, SIDE)), (255, 255, 255) if lit else (0, 0, 0)
    pen = ImageDraw.Draw(image)
    for y in range(SIDE):  # shaded from top to bottom
        share = 0.6 * y / SIDE
        mixed = [round(c * (1 - share) + t * share) for c, t in zip(GROUNDS[ground], target, strict=True)]
        pen.line((0, y, SIDE, y), fill=(mixed[0], mixed[1], mixed[2]))
    font = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSerif.ttf"
    centre = (SIDE // 2 + rng.randint(-3, 3), rng.randint(14, 50))
    ink = "white" if rng.random() < 0.5 else "black"
    pen.text(centre, thing, fill=ink, font=ImageFont.truetype(str(font), 15), anchor="mm")
    shade = "lighter" if lit else "darker"
    opening = rng.choice(OPENINGS)
    return image, f"{opening} the word {thing} in {ink} letters on a {ground} background that gets {shade} downwards."
