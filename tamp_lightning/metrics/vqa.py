"""VQA soft accuracy: a reply against (usually ten) people's answers."""

import re
from collections.abc import Callable, Sequence

# Words whose apostrophe the normaliser restores. Every spelling with exactly one apostrophe missing is
# mapped.
_APOSTROPHES = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've
we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's
who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've
you'll you're you've
"""
CONTRACTIONS = {
    word[:at] + word[at + 1 :]: word for word in _APOSTROPHES.split() for at, letter in enumerate(word) if letter == "'"
}
# A slip of the original table, which takes the apostrophe out.
CONTRACTIONS["somebody'd"] = "somebodyd"

_NUMBERS = ["none zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_DIGITS = {word: str(value) for value, words in enumerate(_NUMBERS) for word in words.split()}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,+\d")
_PERIOD = re.compile(r"\.(?!\d)")
# The original passes a flag (re.UNICODE = 32) where `sub` takes the number of replacements.
_MOST_PERIODS = 32


def strip_punctuation(text: str) -> str:
    """The punctuation step of the VQA evaluations.

    A sign is deleted if the text has it next to a space anywhere (or has a comma inside a number), else it
    becomes a space; then every period not before a digit goes (at most 32).
    """
    result = text
    in_number = _COMMA_IN_NUMBER.search(text) is not None
    for sign in _PUNCTUATION:
        beside_space = f"{sign} " in text or f" {sign}" in text
        result = result.replace(sign, "" if beside_space or in_number else " ")
    return _PERIOD.sub("", result, count=_MOST_PERIODS)


def _fold_words(text: str) -> str:
    words = [_DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def normalize_vqa(text: str) -> str:
    """Normal form of an answer in VQAv2: punctuation, number words, articles, apostrophes, case.

    Source: GT-Vision-Lab/VQA vqaEval.py.
    """
    return _fold_words(strip_punctuation(_one_line(text)))


def normalize_evalai(text: str) -> str:
    """Normal form of an answer on EvalAI (TextVQA, VizWiz, OK-VQA): `normalize_vqa` with "'s" split off.

    Source: lmms-eval _task_utils/vqa_eval_metric.py.
    """
    return normalize_vqa(text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip())


def _evalai(reply: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    return normalize_evalai(reply), [normalize_evalai(answer) for answer in answers]


def _vqav2_lmms(reply: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    return normalize_vqa(reply), [normalize_vqa(answer) for answer in answers]


def _vqa_official(reply: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    plain = [_one_line(answer) for answer in answers]
    # Unanimous people are taken at their word: "Yes." against ten "yes" is wrong.
    return (_one_line(reply), plain) if len(set(plain)) == 1 else _vqav2_lmms(reply, answers)


_PROTOCOLS = {"evalai": _evalai, "vqav2_lmms": _vqav2_lmms, "vqa_official": _vqa_official}


def vqa_soft(protocol: str) -> Callable[[str, str | Sequence[str]], float]:
    """Scorer of VQA soft accuracy: min(1, others who agree / 3), the mean of leaving out each person.

    With ten answers, 1, 2, 3, 4 that agree give 0.3, 0.6, 0.9, 1.0.

    Args:
        protocol: ``"evalai"`` (TextVQA, VizWiz, OK-VQA), ``"vqav2_lmms"``, or ``"vqa_official"``, which
            normalises nothing when all people agree.

    Returns:
        ``(reply, answers) -> score in [0, 1]``; as in the reference it is 0 whatever the reply for fewer than
        two answers, which readers refuse.

    Raises:
        ValueError: for an unknown protocol.

    Source: lmms-eval textvqa/utils.py, vqav2/utils.py; GT-Vision-Lab/VQA vqaEval.py.

    Examples:
        >>> answers = ["two"] * 2 + ["3"] * 8
        >>> [round(vqa_soft("evalai")(reply, answers), 2) for reply in ("2", "three", "a 3.", "four")]
        [0.6, 1.0, 1.0, 0.0]
    """
    if protocol not in _PROTOCOLS:
        raise ValueError(f"Expected `protocol` to be one of {sorted(_PROTOCOLS)}, but got {protocol!r}.")
    normalize = _PROTOCOLS[protocol]

    def score(reply: str, target: str | Sequence[str]) -> float:
        answers = [target] if isinstance(target, str) else target
        if not answers:
            return 0.0
        said, agreed = normalize(reply, answers)
        matches = [answer == said for answer in agreed]
        total = sum(matches)
        return sum(min(1.0, (total - match) / 3) for match in matches) / len(matches)

    return score
