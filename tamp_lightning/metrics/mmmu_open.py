"""MMMU's open questions: numbers and key phrases picked out of a reply."""

import re

from tamp_lightning.metrics.text import References, references

_KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = set(":,.!?;'")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)


def mmmu_open(reply: str, target: References) -> float:
    """1.0 if the reply holds a reference, else 0.0.

    From every line the shortest text after a key such as "is ", "so ", "answer " (and, on the last line, "=")
    is taken, or the whole reply if there is none, and the numbers in it. A reference that is a number must
    equal one of them after rounding to two decimals; another must be part of one, in any case.

    Source: lmms-eval v0.3.2 mmmu/utils.py. Later versions compare single characters and score almost
    everything 0.
    """
    wanted = [form for answer in references(target) for form in _forms(answer)]
    phrases = _key_phrases(reply)
    texts = phrases + [number for phrase in phrases for rule in _NUMBERS for number in rule.findall(phrase)]
    return float(any(_matches(form, wanted) for text in texts for form in _forms(text)))


def _matches(form: str | float, wanted: list[str | float]) -> bool:
    if isinstance(form, str):
        return any(isinstance(answer, str) and answer in form for answer in wanted)
    return form in wanted


def _forms(text: str) -> list[str | float]:
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
    # A single letter must stand at the edge of a word, or it would match nearly any reply.
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def _key_phrases(reply: str) -> list[str]:
    text = reply.strip().strip(".").lower()
    lines = text.split("\n")
    found = []
    for number, line in enumerate(lines, 1):
        keys = (*_KEYS, "=") if number == len(lines) else _KEYS
        tails = [line.split(key)[-1].strip() for key in keys if key in line]
        shortest = _shortest(tails)
        if shortest and shortest not in _TRIVIAL:
            found.append(shortest)
    return found or [text]


def _shortest(tails: list[str]) -> str:
    """The first of the shortest tails, except that an empty one is replaced by whatever follows it."""
    best = ""
    for tail in tails:
        if not best or len(tail) < len(best):
            best = tail
    return best
