"""A real processor over the words that questions about scenes are made of."""

import re
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tamp_lightning.testbeds.skills import easy_pictures, repose, scene_pictures
from tamp_lightning.testbeds.smol_llava_next import CHAT_TEMPLATE, build_processor

PIECES = r"\w+|\s|[^\w\s]"


@pytest.fixture(scope="session")
def reader() -> Any:
    """The bed's processor; every word of the selection split's questions and answers is a token of its own."""
    groups = easy_pictures("selection", 60) + scene_pictures("selection", 120)
    posed = [q for _, own in groups for q in own]
    texts = [t for q in [*posed, *(repose(q, "unseen") for q in posed)] for t in (q.prompt, *q.allowed)]
    words = dict.fromkeys(w for t in [CHAT_TEMPLATE, *texts] for w in re.findall(PIECES, t))
    vocab = {w: i for i, w in enumerate(["<unk>", "<|im_start|>", "<|im_end|>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    return build_processor(fast)
