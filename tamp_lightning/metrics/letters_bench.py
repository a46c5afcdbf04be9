"""Letter extractors of the MMBench tools: reply and option texts -> option number, or -1 if there is none."""

import re
from collections.abc import Sequence

from tamp_lightning.metrics.letters_formats import letters_of, robust
from tamp_lightning.metrics.letters_simple import NOTHING, number_of

# What may be written around a letter that stands as a word of its own.
_MMBENCH_FORMS = ("{}.", "{},", "{}:", "{})", "{}).", "({})", "({}).", ":{}", ":{},", ":{}.", ":{})", ":{}).")
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_REFUSED = number_of("Z")
_SIGNS_TO_SPACES = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([a-d])", re.IGNORECASE)


def mmbench_lmms(reply: str, options: Sequence[str]) -> int:
    """Exactly one of A to E as a word, bare or with signs around it, else exactly one option text.

    A bare letter does not count in a reply of more than three words with the word "A", likely the article.
    Source: lmms-eval mmbench/mmbench_evals.py, can_infer.
    """
    words = reply.split()
    forms = _MMBENCH_FORMS if "A" in words and len(words) > 3 else ("{}", *_MMBENCH_FORMS)
    for form in forms:
        found = [letter for letter in "ABCDE" if form.format(letter) in words]
        if len(found) == 1:
            return number_of(found[0])
    return _only_option_in(reply, options)


def mmbench_static(reply: str, options: Sequence[str]) -> int:
    """`mmbench_lmms`, and `robust` where that finds nothing.

    Source: lmms-eval mmbench/mmbench_evals.py, eval_method="static".
    """
    found = mmbench_lmms(reply, options)
    return found if found != NOTHING else robust(reply, options)


def vlmevalkit(reply: str, options: Sequence[str]) -> int:
    """Exactly one option letter, in the last four words; else "answer is X"; else exactly one option text.

    A refusal is 25 ("Z"), which is no option of any question. Option texts are not looked for in a reply
    longer than twice all of them together. Source: VLMEvalKit vlmeval/utils/matching_util.py.
    """
    if any(refusal in reply for refusal in _REFUSALS):
        return _REFUSED
    words, letters = reply.translate(_SIGNS_TO_SPACES).split(), letters_of(options)
    found = [letter for letter in letters if letter in words]
    if len(found) == 1 and words.index(found[0]) >= len(words) - 4:
        return number_of(found[0])
    if not found and "Z" in words:
        return _REFUSED
    stated = _ANSWER_IS.search(reply)
    if stated and stated[1].upper() in letters:
        return number_of(stated[1])
    too_long = len(reply) > 2 * sum(map(len, options))
    return NOTHING if too_long else _only_option_in(reply, options)


def _only_option_in(reply: str, options: Sequence[str]) -> int:
    found = [number for number, option in enumerate(options) if option.lower() in reply.lower()]
    return found[0] if len(found) == 1 else NOTHING
