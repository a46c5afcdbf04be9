"""Letter extractors of VideoLLaMA2's and TAMP's scripts: reply and option texts -> option number, or -1.

Upstream answers option C (number 2) where these return -1: give `ChoiceAccuracy` ``fallback=2`` for that.
All of them delete the words "answer" and "Answer" first and then look for the first capital of the option
range, even inside a word. Source: TAMP videollama2/eval/inference_video_mcqa_*.py.
"""

import re
from collections.abc import Sequence

from tamp_lightning.metrics.letters_formats import letters_of
from tamp_lightning.metrics.letters_simple import NOTHING, number_of

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DIGIT_WORDS = {str(digit): word for digit, word in enumerate(_WORDS)}


def videollama2_mvbench(reply: str, options: Sequence[str]) -> int:
    """First capital of the option range; without any, the first option whose text occurs in any case.

    As upstream, a capital after ", " or "( " is seen but not understood: nothing is found then.
    """
    text = _without_answer(reply)
    number = _first_capital(text, letters_of(options), before="(, ", after="), ")
    if number is None:
        lowered = text.lower()
        return next((at for at, option in enumerate(options) if option.lower() in lowered), NOTHING)
    return number


def videollama2_egoschema(reply: str, options: Sequence[str]) -> int:
    """First capital A to E."""
    number = _first_capital(_without_answer(reply), "ABCDE", before="( ", after=") ")
    return NOTHING if number is None else number


def videollama2_videomme(reply: str, options: Sequence[str]) -> int:
    """First capital A to D; without any, the first option whose text, or whose digit as a word, occurs."""
    text = _without_answer(reply)
    number = _first_capital(text, "ABCD")
    if number is not None:
        return number
    lowered = text.lower()
    for at, option in enumerate(options):
        if option.lower() in lowered or _DIGIT_WORDS.get(option, option).lower() in lowered:
            return at
    return NOTHING


def videollama2_perceptiontest(reply: str, options: Sequence[str]) -> int:
    """First capital A to C; without any, the option that equals the reply in any case."""
    text = _without_answer(reply)
    number = _first_capital(text, "ABC")
    if number is not None:
        return number
    return next((at for at, option in enumerate(options) if option.lower() == text.lower()), NOTHING)


def _without_answer(reply: str) -> str:
    return reply.replace("answer", "").replace("Answer", "")


def _first_capital(text: str, letters: str, before: str = "", after: str = "") -> int | None:
    """Number of the first letter found, None without any, -1 if signs taken along with it hide it."""
    around = [f"[{re.escape(signs)}]*" if signs else "" for signs in (before, after)]
    found = re.search(f"{around[0]}[{letters}]{around[1]}", text)
    return None if found is None else number_of(found[0].strip().strip("()"))
