"""Procedural clips: a coloured shape that moves, with a sound. What is asked about them, and the right answers.

A clip is made from its split and number alone, so the ground truth needs no files. Clips come in groups of four that
use every shape, direction, colour and sound once each, and in designs of 48 that cover every length and every
combination of what changes. Over whole designs each answer is right equally often, so a guess without the clip is
right once in four times.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Split = Literal["train", "calibration", "selection", "test"]
Category = Literal["vision", "sound", "both", "order"]

SHAPES = ("circle", "square", "cross", "star")
MOTIONS = ("left", "right", "up", "down")
COLOURS = ("red", "green", "blue", "yellow")
SOUNDS = ("hum", "bell", "organ", "noise")
SECONDS = {"short": 2.0, "medium": 4.0, "long": 8.0}
LENGTHS = tuple(SECONDS)
CATEGORIES: tuple[Category, ...] = ("vision", "sound", "both", "order")
GROUP = 4
DESIGN = GROUP * 2 * 2 * len(LENGTHS)
CHANGES = (3 / 8, 5 / 8)
"""When colour and sound change, as shares of the length."""


@dataclass(frozen=True)
class Clip:
    """Everything that is true of one clip."""

    split: Split
    number: int
    length: str
    shape: str
    motion: str
    colours: tuple[str, str]
    """Before and after the change; equal where the colour does not change."""
    sounds: tuple[str, str]
    change: float
    """When it happens, as a share of the length."""

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return SECONDS[self.length]

    @cached_property
    def seed(self) -> str:
        """Seeds everything about the clip that no question asks for."""
        return f"clip/{self.split}/{self.number}"


@dataclass(frozen=True)
class Question:
    """One question about one clip, with four options in VideoMME's manner."""

    id: int
    """Number of the clip times ten, plus the question's place: a stable id within a split."""
    clip: Clip
    kind: str
    category: Category
    text: str
    options: tuple[str, ...]
    answer: str

    @property
    def hears(self) -> bool:
        """Whether the answer cannot be known without the sound."""
        return self.category in ("sound", "both") or self.kind.startswith("sound")


def make_clip(split: Split, number: int) -> Clip:
    """The clip of a split with this number."""
    group, place = divmod(number, GROUP)
    rng = random.Random(f"{split}/{group}")

    def shuffled(words: tuple[str, ...]) -> str:
        return rng.sample(words, GROUP)[place]

    shape, motion = shuffled(SHAPES), shuffled(MOTIONS)
    colours = _pair(COLOURS, rng, place, changes=bool(group & 1))
    sounds = _pair(SOUNDS, rng, place, changes=bool(group & 2))
    length = LENGTHS[group // 4 % len(LENGTHS)]
    return Clip(split, number, length, shape, motion, colours, sounds, CHANGES[rng.randrange(2)])


def _pair(words: tuple[str, ...], rng: random.Random, place: int, changes: bool) -> tuple[str, str]:
    """Word before and after the change; both run over all words within a group."""
    order = rng.sample(words, GROUP)
    step = rng.randrange(1, GROUP) if changes else 0
    return order[place], order[(place + step) % GROUP]


def questions(clip: Clip) -> list[Question]:
    """All questions about a clip."""
    rng = random.Random(f"options/{clip.seed}")
    found: list[Question] = []

    def ask(kind: str, category: Category, text: str, options: tuple[str, ...], answer: str) -> None:
        options = tuple(rng.sample(options, len(options)))
        found.append(Question(10 * clip.number + len(found), clip, kind, category, text, options, answer))

    ask("shape", "vision", "What shape is it?", SHAPES, clip.shape)
    ask("motion", "vision", "Which way does it move?", MOTIONS, clip.motion)
    if clip.colours[0] == clip.colours[1]:
        ask("colour", "vision", "What colour is it?", COLOURS, clip.colours[0])
    else:
        ask("colour_first", "order", "What colour is it first?", COLOURS, clip.colours[0])
        ask("colour_last", "order", "What colour is it last?", COLOURS, clip.colours[1])
    if clip.sounds[0] == clip.sounds[1]:
        ask("sound", "sound", "What sound is it?", SOUNDS, clip.sounds[0])
        ask("both", "both", "What shape and what sound is it?", _mixed(clip, rng), f"{clip.shape} {clip.sounds[0]}")
    else:
        ask("sound_first", "order", "What sound is it first?", SOUNDS, clip.sounds[0])
        ask("sound_last", "order", "What sound is it last?", SOUNDS, clip.sounds[1])
    return found


def _mixed(clip: Clip, rng: random.Random) -> tuple[str, ...]:
    """Two shapes with two sounds each, so that neither sight nor hearing alone tells which is right."""
    shapes = (clip.shape, rng.choice([s for s in SHAPES if s != clip.shape]))
    sounds = (clip.sounds[0], rng.choice([s for s in SOUNDS if s != clip.sounds[0]]))
    return tuple(f"{shape} {sound}" for shape in shapes for sound in sounds)
