"""Words as directions in a language model's embedding, for towers that are taught to say what they see or hear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def word_vectors(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, names: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Tensor], float]:
    """Directions of words from the mean of all embeddings; a word of several tokens is their mean.

    Args:
        model: whose input embedding is used.
        tokenizer: of the model.
        names: groups of words.

    Returns:
        Unit vectors float32 [words,d] by group, and the mean length of an embedding.
    """
    embedding = model.get_input_embeddings().weight
    assert isinstance(embedding, Tensor)
    table = embedding.detach().float()
    found = {}
    for name, words in names.items():
        ids = tokenizer(list(words), add_special_tokens=False)["input_ids"]
        vectors = torch.stack([table[i].mean(0) for i in ids])
        found[name] = F.normalize(vectors - table.mean(0), dim=-1)
    return found, float(table.norm(dim=1).mean())
