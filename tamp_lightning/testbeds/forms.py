"""The benchmarks' own wordings, as `benchmarks.prompts` has them, of questions with a closed set of answers."""

from __future__ import annotations

import random
from typing import Literal

from tamp_lightning.benchmarks import prompts
from tamp_lightning.data.readers.item import Item
from tamp_lightning.testbeds.scene_questions import YES_NO, Asked

Form = Literal["plain", "word", "mme", "options", "unseen"]
LETTERS = "ABCD"
FOURTH = ("hexagon",)
"""In no picture; makes four options of three shapes."""


def options(asked: Asked, rng: random.Random) -> tuple[str, ...]:
    """Four options in random order, the right one among them."""
    wrong = [c for c in asked.candidates if c != asked.answer]
    wrong = rng.sample(wrong, min(3, len(wrong)))
    chosen = [asked.answer, *wrong, *FOURTH][: len(LETTERS)]
    return tuple(rng.sample(chosen, len(chosen)))


def worded(asked: Asked, form: Form, choices: tuple[str, ...] = ()) -> tuple[str, str]:
    """What the user says and what the model should answer.

    Args:
        asked: the question.
        form: easy-VQA's bare question, VQAv2's, GQA's and POPE's request for a word, MME's, MMBench's letters, or
            ClothoAQA's wording, which is kept from training.
        choices: for "options".
    """
    text = f"{asked.text} Please answer yes or no." if form == "mme" else asked.text
    item = Item(id="", question=text, target=asked.answer, options=choices, media=())
    if form == "options":
        return prompts.mmbench(item), LETTERS[choices.index(asked.answer)]
    wordings = {"plain": prompts.bare, "word": prompts.word, "mme": prompts.word, "unseen": prompts.clothoaqa}
    return wordings[form](item), asked.answer


def draw_form(asked: Asked, rng: random.Random) -> Form:
    """A form that training shows: yes/no questions are never asked with options."""
    if asked.candidates == YES_NO:
        return rng.choices(("plain", "word", "mme"), (1, 2, 2))[0]
    return rng.choices(("plain", "word", "options"), (2, 4, 5))[0]
