"""Questions about scenes, by the skill they need; each kind's answers are alike often, whatever the wording."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tamp_lightning.data.easy_vqa import COLOURS, SHAPES
from tamp_lightning.testbeds.scenes import DIGITS, PLACES, WORDS, Scene, Thing

YES_NO = ("yes", "no")
COUNTS = ("1", "2", "3", "4")
SIDES = ("left", "right", "above", "below")


@dataclass(frozen=True)
class Asked:
    """One question about one picture."""

    kind: str
    """The skill it needs: a key of `ASKERS`, or easy-VQA's yes_no, shape, colour."""
    text: str
    answer: str
    candidates: tuple[str, ...]
    """All answers that questions of this sort can have."""


def _one(items: list[Thing], key: str) -> list[Thing]:
    """Those that nothing else shares `key` with."""
    values = [getattr(t, key) for t in items]
    return [t for t in items if values.count(getattr(t, key)) == 1]


def exist(shown: Scene, rng: random.Random) -> list[Asked]:
    """A shape of some colour; where it is absent, its shape or its colour is there whenever that is possible."""
    found = {(t.shape, t.colour) for t in shown.things}
    shape, colour = rng.choice(sorted(found))
    answer = rng.choice(YES_NO)
    if answer == "no":
        near = [(shape, c) for c in COLOURS] + [(s, colour) for s in SHAPES] * 3
        shape, colour = rng.choice([pair for pair in near if pair not in found])
    return [Asked("exist", f"Is there a {colour} {shape} in the image?", answer, YES_NO)]


def count(shown: Scene, rng: random.Random) -> list[Asked]:
    """How many shapes."""
    return [Asked("count", "How many shapes are there in the image?", str(len(shown.things)), COUNTS)]


def position(shown: Scene, rng: random.Random) -> list[Asked]:
    """What is in a quarter, or on which side of one thing another is."""
    thing = rng.choice(shown.things)
    where = f"What is the color of the shape in the {PLACES[thing.place]} of the image?"
    asked = [Asked("position", where, thing.colour, COLOURS)]
    unique = _one(list(shown.things), "shape")
    if len(unique) < 2:
        return asked
    a, b = rng.sample(unique, 2)
    across, down = a.place % 2 - b.place % 2, a.place // 2 - b.place // 2
    if across and (not down or rng.random() < 0.5):
        text, answer = (
            f"Is the {a.shape} to the left or to the right of the {b.shape}?",
            "right" if across > 0 else "left",
        )
    else:
        text, answer = f"Is the {a.shape} above or below the {b.shape}?", "below" if down > 0 else "above"
    return [*asked, Asked("position", text, answer, SIDES)]


def comparison(shown: Scene, rng: random.Random) -> list[Asked]:
    """Which of two is larger, or whether all have one colour."""
    asked = []
    if len(shown.things) > 1:
        same = len({t.colour for t in shown.things}) == 1
        asked.append(Asked("comparison", "Do all shapes have the same color?", "yes" if same else "no", YES_NO))
    unique = _one(list(shown.things), "shape")
    pairs = [(a, b) for a in unique for b in unique if a.size != b.size]
    if pairs:
        a, b = rng.choice(pairs)
        larger = a.shape if a.size == "large" else b.shape
        asked.append(Asked("comparison", f"Which is larger, the {a.shape} or the {b.shape}?", larger, SHAPES))
    return asked


def reading(shown: Scene, rng: random.Random) -> list[Asked]:
    """The digit or the word that is written."""
    if shown.writing is None:
        return []
    if shown.writing.is_digit:
        return [Asked("reading", "What number is written in the image?", shown.writing.text, DIGITS)]
    return [Asked("reading", "What word is written in the image?", shown.writing.text, WORDS)]


def pair(shown: Scene, rng: random.Random) -> list[Asked]:
    """A property of one of several things, told by another property."""
    things, asked = list(shown.things), []
    if shown.writing is not None:
        asked.append(Asked("pair", "What is the color of the writing?", shown.writing.colour, COLOURS))
    if len(things) > 1 and (by_shape := _one(things, "shape")):
        thing = rng.choice(by_shape)
        asked.append(Asked("pair", f"What is the color of the {thing.shape}?", thing.colour, COLOURS))
    if len(things) > 1 and (by_colour := _one(things, "colour")):
        thing = rng.choice(by_colour)
        asked.append(Asked("pair", f"What is the shape of the {thing.colour} object?", thing.shape, SHAPES))
    return asked


ASKERS: dict[str, Callable[[Scene, random.Random], list[Asked]]] = {
    "exist": exist,
    "count": count,
    "position": position,
    "comparison": comparison,
    "reading": reading,
    "pair": pair,
}


def ask(shown: Scene, rng: random.Random) -> list[Asked]:
    """Questions of every kind that the scene allows, at random among each kind's."""
    return [question for asker in ASKERS.values() for question in asker(shown, rng)]
