"""Scorers of short free-text answers: pure functions of a reply and one or several references."""

import string
from collections.abc import Callable, Sequence
from itertools import pairwise

References = str | Sequence[str]
_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)


def references(target: References) -> list[str]:
    """The references as a list."""
    return [target] if isinstance(target, str) else list(target)


def exact(reply: str, target: References) -> float:
    """1.0 if the reply equals a reference apart from case and ASCII punctuation, else 0.0.

    Spaces and articles stay: "yes " and "yes ." are not "yes". Source: lmms-eval api/metrics.py, exact_match with
    ignore_case and ignore_punctuation.

    Examples:
        >>> exact("Yes.", "yes"), exact("yes .", "yes"), exact("a dog", ["dog", "the dog"])
        (1.0, 0.0, 0.0)
    """

    def fold(text: str) -> str:
        return text.lower().translate(_DELETE_PUNCTUATION)

    return float(fold(reply) in map(fold, references(target)))


def contains(reply: str, target: References) -> float:
    """1.0 if a reference occurs in the reply in any case, also inside a word, else 0.0."""
    return float(any(text.upper() in reply.upper() for text in references(target)))


def short_answer(reply: str, target: References) -> float:
    """1.0 if the reply without its final spaces and periods equals a reference in any case, else 0.0.

    Source: TAMP videollama2/eval/eval_audio_video_AVQA.py (MUSIC-AVQA, ClothoAQA).
    """
    return float(reply.rstrip(" .").upper() in [text.upper() for text in references(target)])


def same_text(reply: str, target: References) -> float:
    """1.0 if the reply equals a reference apart from case, else 0.0: "no." is not "no" (ClothoAQA's yes/no).

    Source: TAMP videollama2/eval/eval_audio_clothoAQA.py.
    """
    return float(reply.lower() in [text.lower() for text in references(target)])


def levenshtein(first: str, second: str) -> int:
    """Fewest insertions, deletions and substitutions of a character that turn `first` into `second`."""
    previous = list(range(len(second) + 1))
    for row, letter in enumerate(first, 1):
        current = [row]
        for column, (diagonal, above) in enumerate(pairwise(previous)):
            swapped = diagonal + (letter != second[column])
            current.append(min(above + 1, current[-1] + 1, swapped))
        previous = current
    return previous[-1]


def anls(reply: str, target: References, threshold: float = 0.5) -> float:
    """Normalised Levenshtein similarity (DocVQA): 1 - distance / longer length, of the best reference.

    Case and runs of whitespace are folded for the distance, not for the lengths. Below `threshold` the score
    is 0. Source: lmms-eval api/metrics.py, anls.

    Examples:
        >>> anls("12 May 1980", "12 May 1981"), anls("June", "12 May 1981")
        (0.909..., 0.0)
    """

    def similarity(answer: str) -> float:
        folded = " ".join(answer.lower().split()), " ".join(reply.lower().split())
        length = max(len(answer), len(reply))
        return 1 - levenshtein(*folded) / length if length else 1.0

    best = max(similarity(answer) for answer in references(target))
    return best if best >= threshold else 0.0


def relaxed(reply: str, target: References, tolerance: float = 0.05) -> float:
    """Relaxed accuracy (ChartQA): 1.0 if a number is within a relative `tolerance` of a reference, else 0.0.

    "5%" is 0.05, "1,000" is no number. Where the reply is no number, or the reference no number or zero, they
    must be equal apart from case. Source: lmms-eval chartqa/utils.py.
    """
    reply = reply.strip()

    def close(answer: str) -> bool:
        said, true = _number(reply), _number(answer)
        if said is None or not true:
            return reply.lower() == answer.lower()
        return abs(said - true) / abs(true) <= tolerance

    return float(any(close(answer.strip()) for answer in references(target)))


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def wups(similarity: Callable[[str, str], float], alpha: float = 0.0) -> Callable[[str, References], float]:
    """Scorer of WUPS (NExT-QA open): soft overlap of the words of two answers.

    Each word takes its best similarity to the other answer; these are multiplied, words without any match
    being skipped; the smaller of both directions counts, for the best reference. Upstream always uses alpha 0
    for a second reference and asks for equality on counting and yes/no questions: here `alpha` holds for all,
    and such questions need another scorer.

    Args:
        similarity: of two different words, in [0, 1], 0 if unknown (upstream: Wu-Palmer on the first WordNet
            synsets). Stop words and lemmas are the caller's as well: words are split at spaces.
        alpha: similarities below it are multiplied by 0.1.

    Returns:
        ``(reply, target or targets) -> score in [0, 1]``.

    Source: lmms-eval nextqa/utils.py.
    """

    def word_score(first: str, second: str) -> float:
        if first == second:
            return 1.0
        value = similarity(first, second)
        return value if value >= alpha else 0.1 * value

    def one_way(words: list[str], others: list[str]) -> float:
        best = [max((word_score(word, other) for other in others), default=0.0) for word in words]
        matched = [value for value in best if value > 0]
        product = 1.0 if matched else 0.0
        for value in matched:
            product *= value
        return product

    def score(reply: str, target: References) -> float:
        words = reply.split()
        pairs = [(words, answer.split()) for answer in references(target)]
        return max(min(one_way(said, true), one_way(true, said)) for said, true in pairs)

    return score
