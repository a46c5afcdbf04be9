"""Letter extractors that weigh formats: reply and option texts -> option number, or -1 if there is none."""

import string
from collections.abc import Iterator, Sequence

_STEMS = (
    "answer is",
    "correct answer is",
    "best answer is",
    "correct option is",
    "best option is",
    "choice is",
    "correct choice is",
)
_PHRASES = (
    *_STEMS,
    *(f"the {stem}" for stem in _STEMS),
    *("i choose", "i select", "i pick", "my answer is", "my choice is"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
# Rank of a letter by the way it is written; `robust` takes the highest.
_START, _END, _AFTER_PHRASE = 10, 9, 7
_FORMATS = {"({})": 6, "{}.": 5, "{}:": 4, "{})": 3, "{} ": 2}


def letters_of(options: Sequence[str]) -> str:
    """The letters of the options, from A on."""
    return string.ascii_uppercase[: len(options)]


def _padded(reply: str, signs: str) -> str:
    """The reply without outer `signs` (each taken off once, in order), between spaces."""
    for sign in signs:
        reply = reply.strip(sign)
    return f" {reply} "


def robust(reply: str, options: Sequence[str]) -> int:
    """The letter written in the most telling way; among equals the last one.

    From most to least: at the start, at the end (no letter beside it), after a phrase like "answer is",
    "(X)", "X.", "X:", "X)", "X " and, if there is none of these, anywhere.

    Source: lmms-eval _task_utils/mcq_extract.py.
    """
    letters = letters_of(options)
    text = _padded(reply.strip(), ",.!?;:'\"")
    found = [*_by_format(text, letters), *_by_phrase(text, letters), *_by_edge(text.strip(), letters)]
    if not found:
        found = [(0, text.rfind(letter), number) for number, letter in enumerate(letters) if letter in text]
    return max(found, key=lambda candidate: candidate[:2], default=(0, 0, -1))[2]


def _by_format(text: str, letters: str) -> Iterator[tuple[int, int, int]]:
    for form, rank in _FORMATS.items():
        for number, letter in enumerate(letters):
            at = text.rfind(form.format(letter))
            if at >= 0:
                yield rank, at, number


def _by_phrase(text: str, letters: str) -> Iterator[tuple[int, int, int]]:
    lowered = text.lower()
    for phrase in _PHRASES:
        start = lowered.find(phrase)
        for number, letter in enumerate(letters) if start >= 0 else ():
            at = text.find(letter, start + len(phrase))
            if at >= 0:
                yield _AFTER_PHRASE, at, number


def _by_edge(text: str, letters: str) -> Iterator[tuple[int, int, int]]:
    for number, letter in enumerate(letters):
        if text.startswith(letter) and not text[1:2].isalpha():
            yield _START, 0, number
        if text.endswith(letter) and not text[-2:-1].isalpha():
            yield _END, len(text), number


def mmmu(reply: str, options: Sequence[str]) -> int:
    """The last letter written "(X)", else "X ", else "X."; else the last option text.

    Option texts count in a reply of more than five words only. Nothing found is -1; upstream draws a random
    option. Source: lmms-eval v0.3.2 mmmu/utils.py.
    """
    letters = letters_of(options)
    text = _padded(reply, ",.!?;:'")
    # "X " and "X." are both ordered by where " X " stands, as upstream does.
    for form, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        found = [number for number, letter in enumerate(letters) if form.format(letter) in text]
        if found:
            return max(found, key=lambda number: text.rfind(place.format(letters[number])))
    places = _option_places(text, options)
    return max(places, key=lambda number: places[number], default=-1)


def egoschema(reply: str, options: Sequence[str]) -> int:
    """Of letters written "(X)", "X " or "X.", the one whose last occurrence comes first; else option texts.

    Option texts count in a reply of more than five words only. Nothing found is -1; upstream draws a random
    option. Source: lmms-eval egoschema/utils.py.
    """
    text = _padded(reply, ",.!?;:'")
    numbered = list(enumerate(letters_of(options)))
    forms = [(form.format(letter), number) for form in ("({})", "{} ", "{}.") for number, letter in numbered]
    found = [(text.rfind(form), number) for form, number in forms if form in text]
    if not found:
        found = [(at, number) for number, at in _option_places(text, options).items()]
    return min(found, key=lambda candidate: candidate[0], default=(0, -1))[1]


def _option_places(text: str, options: Sequence[str]) -> dict[int, int]:
    """Last place of each option text that occurs; only in a text of more than five words."""
    if len(text.split()) <= 5:
        return {}
    lowered = text.lower()
    places = {number: lowered.rfind(option.strip().lower()) for number, option in enumerate(options)}
    return {number: at for number, at in places.items() if at >= 0}
