"""Class names in free-text replies (audio benchmarks)."""

import string
from collections.abc import Callable, Sequence

from tamp_lightning.metrics.text import References, contains, references

# In the order of the letters in the prompts.
VOCALSOUND = ("Laughter", "Sigh", "Cough", "Throat clearing", "Sneeze", "Sniff")
TUT2017 = (
    "beach",
    "bus",
    "cafe or restaurant",
    "car",
    "city center",
    "forest path",
    "grocery store",
    "home",
    "library",
    "metro station",
    "office",
    "park",
    "residential area",
    "train",
    "tram",
)
_LMMS_ORDER = {
    "Laughter": "Laughter",
    "Sniff": "Sniff",
    "Throat": "Throat clearing",
    "Cough": "Cough",
    "Sigh": "Sigh",
    "Sneeze": "Sneeze",
}


def label_contained(labels: Sequence[str]) -> Callable[[str, References], float]:
    """VideoLLaMA2's scorer of VocalSound and TUT2017: the reply holds the class, or is its letter.

    The letter may stand in brackets; case does not count. It stands for any text that its label contains.

    Args:
        labels: class names in the order of their letters.

    Source: TAMP videollama2/eval/eval_audio_vocalsound.py, eval_audio_TUT2017.py.
    """
    named = dict(zip(string.ascii_uppercase, labels, strict=False))
    named |= {f"({letter})": label for letter, label in named.items()}

    def score(reply: str, target: References) -> float:
        label = named.get(reply.strip().upper(), "")
        return max(contains(reply, target), contains(label, target))

    return score


def vocalsound_label(reply: str) -> str:
    """The first of lmms-eval's six labels, in its order, that the reply contains in any case; "" if none.

    "Throat" alone is "Throat clearing". Source: lmms-eval vocalsound/utils.py.
    """
    return next((label for part, label in _LMMS_ORDER.items() if part.lower() in reply.lower()), "")


def first_vocalsound_label(reply: str, target: References) -> float:
    """1.0 if `vocalsound_label` of the reply is a reference, else 0.0."""
    return float(vocalsound_label(reply) in references(target))
