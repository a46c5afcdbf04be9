"""Which weights are pruned: read from a run folder, or told from a checkpoint's zeros."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tamp_lightning.checkpoint.mask_file import MASKS
from tamp_lightning.checkpoint.reader import read_json
from tamp_lightning.errors import InputError
from tamp_lightning.finetune.target import Target
from tamp_lightning.ops.bits import bits_sha256, unpack_bits

PLAN = "plan.json"
OWN_ZEROS = 0.01
"""Share of zeros up to which a linear counts as dense: checkpoints have zeros of their own."""


def read_masks(run: Path) -> dict[str, Tensor]:
    """Masks of a run folder by full linear name, True = kept.

    Raises:
        InputError: a file is missing or damaged, or a mask is not the one that plan.json says.
    """
    path, content = run / MASKS, read_json(run / PLAN)
    plan = content.get("linears", {}) | content.get("towers", {})
    if not path.is_file():
        raise InputError(f"{path} is missing: is {run} a run folder of `tamp run`?")
    masks: dict[str, Tensor] = {}
    try:
        with safe_open(path, "pt") as file:
            shapes, names = file.metadata() or {}, sorted(file.keys())
            if names != sorted(plan):
                raise InputError(f"{path} has masks of {len(names)} linears, {PLAN} of {len(plan)}: not of one run")
            for name in names:
                bits = file.get_tensor(name)
                _check_sum(path, name, bits, plan[name].get("sha256"))
                masks[name] = _unpacked(path, name, bits, shapes.get(name))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or corrupt ({' '.join(str(error).split())}): prune again") from None
    return masks


def _check_sum(path: Path, name: str, bits: Tensor, expected: str | None) -> None:
    found = bits_sha256(bits)
    if found != expected:
        raise InputError(f"mask of {name} in {path} has sha256 {found[:12]}, {PLAN} says {str(expected)[:12]}")


def _unpacked(path: Path, name: str, bits: Tensor, text: str | None) -> Tensor:
    shape = tuple(json.loads(text)) if text else ()
    if bits.dtype != torch.uint8 or bits.dim() != 1 or len(bits) != -(-math.prod(shape) // 8):
        raise InputError(f"mask of {name} in {path} has {bits.numel()} bytes of {bits.dtype} for shape {shape}")
    return unpack_bits(bits, shape)


def masks_from_zeros(target: Target) -> dict[str, Tensor]:
    """Masks of the linears of the decoder blocks that are sparse: kept is what is not zero.

    A linear with less than 1 % zeros is left out: those are its own. A weight that pruning kept and that happens to
    be zero cannot be told from a pruned one, so it stays zero.
    """
    masks = {}
    for name, key in target.linears.items():
        mask = target.reader.read([key])[key] != 0
        if mask.sum() < (1 - OWN_ZEROS) * mask.numel():
            masks[name] = mask
    return masks


def check_masks(target: Target, masks: dict[str, Tensor]) -> None:
    """Compare masks with the checkpoint that they are said to belong to.

    Raises:
        InputError: a linear is unknown or of another shape, or a weight under a mask is not zero.
    """
    keys = {name: target.weight_key(name) for name in masks}
    for name, mask in masks.items():
        key = keys[name]
        if key is None:
            raise InputError(f"masks are of another model: {target.folder} has no linear {name} that could be pruned")
        shape = target.reader.info(key).shape
        if shape != tuple(mask.shape):
            raise InputError(f"masks are of another model: {name} has shape {tuple(mask.shape)} there, {shape} here")
    for name, mask in masks.items():
        key = str(keys[name])
        weight = target.reader.read([key])[key]
        left = int(torch.count_nonzero(weight.masked_fill(mask, 0)))
        if left:
            raise InputError(
                f"{name} of {target.folder} has {left} weights that are not zero where its mask is: "
                "model and masks are not of one run"
            )
