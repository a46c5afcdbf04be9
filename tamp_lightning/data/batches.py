"""Batches that somebody else made: what a batch of model inputs has to be, said in one line that names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tamp_lightning.errors import InputError

EXPECTED = "expected the dict that a processor makes with return_tensors='pt' and padding=True"


def check_batch(number: int, batch: Any) -> None:
    """Refuse what is no batch of model inputs.

    Args:
        number: of the batch, for messages.
        batch: what was given.

    Raises:
        InputError: names batch, key and what is expected.
    """
    place = f"calibration batch {number}"
    if not isinstance(batch, Mapping):
        raise InputError(f"{place} is a {type(batch).__name__}: {EXPECTED}")
    if "input_ids" not in batch:
        beside = " (the kind of every token is read from it, so inputs_embeds alone is not enough)"
        has = ", ".join(map(str, batch)) or "nothing"
        raise InputError(f"{place} has no input_ids{beside if 'inputs_embeds' in batch else ''}, but {has}: {EXPECTED}")
    ids = batch["input_ids"]
    if not isinstance(ids, Tensor):
        raise InputError(f"{place}: input_ids is a {type(ids).__name__}: {EXPECTED}")
    if ids.ndim != 2 or not ids.numel():
        raise InputError(f"{place}: input_ids has shape {list(ids.shape)}, expected [samples, tokens], at least 1 x 1")
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise InputError(f"{place}: input_ids holds {ids.dtype}, expected whole numbers (int64)")
    mask = batch.get("attention_mask")
    if mask is not None and not isinstance(mask, Tensor):
        raise InputError(f"{place}: attention_mask is a {type(mask).__name__}: {EXPECTED}")
    if mask is not None and mask.shape != ids.shape:
        raise InputError(
            f"{place}: attention_mask has shape {list(mask.shape)}, input_ids {list(ids.shape)}: expected the same"
        )


def right_padded(mask: Tensor, place: str = "") -> Tensor:
    """Validity [B,n] bool of an attention mask.

    Args:
        mask: [B,n], not zero where there is a token.
        place: what messages begin with.

    Raises:
        InputError: a row is nothing but padding, or has padding anywhere but at its end.
    """
    valid = mask.bool()
    if bool((empty := ~valid.any(1)).any()):
        raise InputError(
            f"{place}row {int(empty.long().argmax())} of attention_mask is all padding: leave the sample out"
        )
    if not torch.equal(valid, valid.long().cummin(1).values.bool()):
        raise InputError(f"{place}attention_mask has padding before tokens: pad on the right (padding_side='right')")
    return valid
