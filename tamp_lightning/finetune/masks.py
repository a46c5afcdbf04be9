"""Which weights are pruned: read from a run folder, or told from a checkpoint's zeros."""

from __future__ import annotations

import torch
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.finetune.target import Target

OWN_ZEROS = 0.01
"""Share of zeros up to which a linear counts as dense: checkpoints have zeros of their own."""


def masks_from_zeros(target: Target) -> dict[str, Tensor]:
    """Masks of the linears of the decoder blocks that are sparse: kept is what is not zero.

    A linear with less than 1 % zeros is left out: those are its own. A weight that pruning kept and that happens to
    be zero cannot be told from a pruned one, so it stays zero.
    """
    masks = {}
    for name in target.linears:
        mask = target.weight(name) != 0
        if mask.sum() < (1 - OWN_ZEROS) * mask.numel():
            masks[name] = mask
    return masks


def check_masks(target: Target, masks: dict[str, Tensor]) -> None:
    """Compare masks with the checkpoint that they are said to belong to.

    Raises:
        InputError: a linear is unknown or of another shape, or a weight under a mask is not zero.
    """
    for name, mask in masks.items():
        shape = target.stored_shape(name)
        if shape is None:
            raise InputError(f"masks are of another model: {target.folder} has no linear {name} that could be pruned")
        if shape != tuple(mask.shape):
            raise InputError(f"masks are of another model: {name} has shape {tuple(mask.shape)} there, {shape} here")
    for name, mask in masks.items():
        left = int(torch.count_nonzero(target.weight(name).masked_fill(mask, 0)))
        if left:
            raise InputError(
                f"{name} of {target.folder} has {left} weights that are not zero where its mask is: "
                "model and masks are not of one run"
            )
