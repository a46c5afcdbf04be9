"""Prompts, as lmms-eval (pictures) and VideoLLaMA2's scripts (videos and sounds) word them.

Wording is part of a protocol: a changed comma changes scores, so oddities of the sources are kept.
"""

from __future__ import annotations

import string

from tamp_lightning.data.readers.item import Item
from tamp_lightning.metrics.labels import TUT2017, VOCALSOUND

WORD = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
ONLY_BEST = "Answer with the option's letter from the given choices directly and only give the best option."
UNANSWERABLE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."


def lettered(options: tuple[str, ...], form: str = "{}. {}") -> str:
    """Options one a line, each with its letter; a letter without an option is passed over."""
    return "\n".join(form.format(*pair) for pair in zip(string.ascii_uppercase, options, strict=False) if pair[1])


def bare(item: Item) -> str:
    """The question as it is."""
    return item.question


def word(item: Item) -> str:
    """The question, and the request for a word (POPE, MME, VQAv2, GQA)."""
    return item.question + WORD


def textvqa(item: Item) -> str:
    """As `word`; `capitalize` also lower-cases all letters but the first, as upstream."""
    return item.question.capitalize() + WORD


def vizwiz(item: Item) -> str:
    """As TextVQA, with leave to say "Unanswerable"."""
    return item.question.capitalize() + UNANSWERABLE + WORD


def ok_vqa(item: Item) -> str:
    """As VizWiz, the question's letters untouched."""
    return item.question + UNANSWERABLE + WORD


def mmbench(item: Item) -> str:
    """Hint, question, options and the request for a letter."""
    hint = f"{item.hint} " if item.hint else ""
    return f"{hint}{item.question} There are several options:\n{lettered(item.options)}\n{LETTER}"


def options(item: Item) -> str:
    """Question, options and the request for a letter (MuirBench, NExT-QA)."""
    return f"{item.question}\n{lettered(item.options)}{LETTER}"


def scienceqa(item: Item) -> str:
    """As `options`, the hint in front as context."""
    return (f"Context: {item.hint}\n" if item.hint else "") + options(item)


def mmmu(item: Item) -> str:
    """Question, options if any, an empty line and the request; `<image n>` stays as text, as upstream."""
    if not item.options:
        return f"{item.question}\n\n{WORD.strip()}"
    return f"{item.question}\n{lettered(item.options)}\n\n{LETTER.strip()}"


def videomme(item: Item) -> str:
    """VideoLLaMA2's wording for VideoMME."""
    return (
        "Select the best answer to the following multiple-choice question based on the video. Respond with only the "
        f"letter (A, B, C, or D) of the correct option.\n{item.question}\n{lettered(item.options)}\n{ONLY_BEST} "
        "The best answer is: "
    )


def egoschema(item: Item) -> str:
    """VideoLLaMA2's wording for EgoSchema."""
    return (
        "Select the best answer to the following multiple-choice question based on the video.\n"
        f"{item.question}\nOptions:\n{lettered(item.options, '({}) {}')}\n{ONLY_BEST} The best answer is: "
    )


def bracketed(item: Item) -> str:
    """VideoLLaMA2's wording for MVBench and PerceptionTest."""
    return f"Question: {item.question}\nOptions:\n{lettered(item.options, '({}) {}')}\n{ONLY_BEST}"


def clothoaqa(item: Item) -> str:
    """VideoLLaMA2's wording for ClothoAQA."""
    return f"Question: {item.question}\nAnswer the question using a single word."


def vocalsound(item: Item) -> str:
    """The six classes as options; the period on a line of its own is upstream's."""
    return f"Identify the human sound in the audio.\nOptions:\n{lettered(VOCALSOUND, '({}) {}')}\n.{ONLY_BEST}"


def tut2017(item: Item) -> str:
    """The fifteen scenes as options; the period is upstream's."""
    return f"Question: Identify the sound event in the audio.\nOptions:\n{lettered(TUT2017, '({}) {}')}\n.{ONLY_BEST}"
