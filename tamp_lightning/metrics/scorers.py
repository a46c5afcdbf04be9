"""Answer scorers by name."""

from collections.abc import Callable, Sequence

from tamp_lightning.metrics.labels import TUT2017, VOCALSOUND, first_vocalsound_label, label_contained
from tamp_lightning.metrics.letters_simple import single_letter_match
from tamp_lightning.metrics.mmmu_open import mmmu_open
from tamp_lightning.metrics.rouge import rouge_l
from tamp_lightning.metrics.text import anls, contains, exact, relaxed, same_text, short_answer
from tamp_lightning.metrics.vqa import vqa_soft

Scorer = Callable[[str, str | Sequence[str]], float]

SCORERS: dict[str, Scorer] = {
    "vqa_evalai": vqa_soft("evalai"),
    "vqa_vqav2_lmms": vqa_soft("vqav2_lmms"),
    "vqa_official": vqa_soft("vqa_official"),
    "exact": exact,
    "contains": contains,
    "anls": anls,
    "relaxed": relaxed,
    "mmmu_open": mmmu_open,
    "rouge_l": rouge_l,
    "first_single_letter": single_letter_match,
    "videollama2_short_answer": short_answer,
    "videollama2_same_text": same_text,
    "videollama2_vocalsound": label_contained(VOCALSOUND),
    "videollama2_tut2017": label_contained(TUT2017),
    "vocalsound_lmms": first_vocalsound_label,
}


def scorer(name: str) -> Scorer:
    """The scorer ``(reply, target or targets) -> score in [0, 1]`` of that name.

    WUPS is not among them since it needs a word similarity: see `tamp_lightning.metrics.text.wups`.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in SCORERS:
        raise ValueError(f"Expected a scorer among {sorted(SCORERS)}, but got {name!r}.")
    return SCORERS[name]
