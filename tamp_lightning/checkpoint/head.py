"""What stands after the decoder blocks: the final norm and the head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tamp_lightning.errors import InputError

FINAL_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f")


def find_norm(model: PreTrainedModel, blocks: str) -> nn.Module:
    """The norm after the blocks.

    Args:
        model: the skeleton.
        blocks: dotted path of its decoder blocks.

    Raises:
        InputError: there is no norm or no head.
    """
    decoder = model.get_submodule(blocks.rpartition(".")[0])
    norm = next((module for name, module in decoder.named_children() if name in FINAL_NORMS), None)
    if norm is None or model.get_output_embeddings() is None:
        missing = "final norm" if norm is None else "head"
        raise InputError(
            f"no {missing} is found in {type(model).__name__}: do without ecoflap, and set scores.mode: whole"
        )
    return norm


def head_logits(model: PreTrainedModel, blocks: str, hidden: Tensor) -> Tensor:
    """Logits [tokens, vocab] of hidden states after the last block [tokens, h].

    Raises:
        InputError: there is no norm or no head.
    """
    logits = model.get_output_embeddings()(find_norm(model, blocks)(hidden))
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)
