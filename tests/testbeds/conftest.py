"""A real processor over the words that questions about scenes are made of."""

import re
from typing import Any

import pytest

from tamp_lightning.testbeds.skills import easy_pictures, repose, scene_pictures
from tamp_lightning.testbeds.smol_llava_next import CHAT_TEMPLATE, build_processor

from ..fixtures.tokenizer import PIECES, word_tokenizer


@pytest.fixture(scope="session")
def reader() -> Any:
    """The bed's processor; every word of the selection split's questions and answers is a token of its own."""
    groups = easy_pictures("selection", 60) + scene_pictures("selection", 120)
    posed = [q for _, own in groups for q in own]
    texts = [t for q in [*posed, *(repose(q, "unseen") for q in posed)] for t in (q.prompt, *q.allowed)]
    words = dict.fromkeys(w for t in [CHAT_TEMPLATE, *texts] for w in re.findall(PIECES, t))
    return build_processor(word_tokenizer(words))
