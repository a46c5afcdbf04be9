"""Letter extractors by protocol name."""

from collections.abc import Callable, Sequence

from tamp_lightning.metrics.letters_bench import mmbench_lmms, mmbench_static, vlmevalkit
from tamp_lightning.metrics.letters_formats import egoschema, mmmu, robust
from tamp_lightning.metrics.letters_simple import (
    ai2d,
    first_char,
    first_single_letter,
    letter_dot,
    videomme_official,
    word_boundary,
)
from tamp_lightning.metrics.letters_videollama2 import (
    videollama2_egoschema,
    videollama2_mvbench,
    videollama2_perceptiontest,
    videollama2_videomme,
)

Extractor = Callable[[str, Sequence[str]], int]

_RULES: tuple[Extractor, ...] = (
    ai2d,
    egoschema,
    first_char,
    first_single_letter,
    letter_dot,
    mmbench_lmms,
    mmbench_static,
    mmmu,
    robust,
    videollama2_egoschema,
    videollama2_mvbench,
    videollama2_perceptiontest,
    videollama2_videomme,
    videomme_official,
    vlmevalkit,
    word_boundary,
)
# MuirBench's own rule comes to the same as ScienceQA's.
EXTRACTORS: dict[str, Extractor] = {rule.__name__: rule for rule in _RULES} | {"muirbench": letter_dot}


def extractor(protocol: str) -> Extractor:
    """The rule ``(reply, option texts) -> option number`` of a protocol.

    A number that is no option of the question, such as -1, means that none was found.

    Raises:
        ValueError: for an unknown protocol.
    """
    if protocol not in EXTRACTORS:
        raise ValueError(f"Expected a protocol among {sorted(EXTRACTORS)}, but got {protocol!r}.")
    return EXTRACTORS[protocol]
