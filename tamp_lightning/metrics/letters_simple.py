"""Letter extractors of one rule each: reply and option texts -> option number, or -1 if there is none."""

import re
import string
from collections.abc import Sequence

from tamp_lightning.metrics.text import References, references
from tamp_lightning.metrics.vqa import strip_punctuation

NOTHING = -1
_UPPER_DOT = re.compile(r"\s*([A-Z])\.")
_STANDALONE_A_TO_D = re.compile(r"\b[A-D]\b")
_LETTER_AND_TEXT = re.compile(r"([a-e])\.\s*.+$", re.IGNORECASE)
_STANDALONE_A_TO_E = re.compile(r"\b[a-e]\b")
# The reference list lacks a comma in two places, so its last four prefixes are two that never occur.
_VIDEOMME_PREFIXES = ("The best answer is", "The correct answer is", "The answer is", "The answer")


def number_of(letter: str) -> int:
    """Option number of a letter in any case (A is 0), -1 for anything else."""
    return string.ascii_uppercase.find(letter.upper()) if len(letter) == 1 else NOTHING


def letter_dot(reply: str, options: Sequence[str]) -> int:
    """The whole reply is a letter, or it starts with an upper-case letter and a period.

    Source: lmms-eval scienceqa/utils.py; muirbench/utils.py comes to the same.
    """
    reply = reply.strip()
    dotted = _UPPER_DOT.match(reply)
    return number_of(dotted[1] if dotted else reply)


def ai2d(reply: str, options: Sequence[str]) -> int:
    """As `letter_dot`, or the reply without its ASCII punctuation is a letter. Source: lmms-eval ai2d."""
    dotted = _UPPER_DOT.match(reply)
    bare = reply.translate(str.maketrans("", "", string.punctuation)).strip()
    return number_of(dotted[1] if dotted else bare)


def first_char(reply: str, options: Sequence[str]) -> int:
    """The first character, in any case. Source: lmms-eval seedbench/utils.py."""
    return number_of(reply.strip()[:1])


def word_boundary(reply: str, options: Sequence[str]) -> int:
    """The first stand-alone capital A to D, the article "A" included.

    Source: lmms-eval perceptiontest/val/utils.py.
    """
    found = _STANDALONE_A_TO_D.search(reply)
    return number_of(found[0]) if found else NOTHING


def videomme_official(reply: str, options: Sequence[str]) -> int:
    """The first capital A to D, even inside a word, after deleting phrases like "The best answer is".

    Source: lmms-eval v0.3.2 videomme/utils.py (Video-MME's own tool).
    """
    for prefix in _VIDEOMME_PREFIXES:
        reply = reply.replace(prefix, "")
    return next((number_of(letter) for letter in reply if letter in "ABCD"), NOTHING)


def single_letter_or_text(reply: str) -> str:
    """The letter A to E a reply names ("b. text", else the first stand-alone a to e), or its folded text.

    Case does not count, so the article "a" is option A. Source: lmms-eval mvbench/utils.py, mcq_acc.
    """
    text = reply.strip()
    lettered = _LETTER_AND_TEXT.match(text)
    if lettered:
        return lettered[1].upper()
    text = strip_punctuation(text.replace("\n", " ").replace("\t", " "))
    for quote in "'\")(":
        text = text.strip(quote)
    text = text.strip().lower()
    standalone = _STANDALONE_A_TO_E.search(text)
    return standalone[0].upper() if standalone else text


def first_single_letter(reply: str, options: Sequence[str]) -> int:
    """The option letter of `single_letter_or_text`, if it is one."""
    found = single_letter_or_text(reply)
    return number_of(found) if found.isupper() else NOTHING


def single_letter_match(reply: str, target: References) -> float:
    """1.0 if reply and reference name the same letter, or without letters have the same folded text.

    The scorer of MVBench and LLaVA-Interleave in lmms-eval; references may be letters or texts.
    """
    return float(single_letter_or_text(reply) in map(single_letter_or_text, references(target)))
