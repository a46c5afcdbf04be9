"""Weights as they are stored: a matrix may be all of a tensor on disk, or a part of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.errors import InputError
from tamp_lightning.ops.masks import all_finite, keep_where


def key_of(linear: Linear) -> str:
    """Key of a linear of a checkpoint on disk."""
    assert linear.key is not None
    return linear.key


def by_key(linears: Iterable[Linear]) -> dict[str, list[Linear]]:
    """Linears by their key on disk; experts may share one."""
    found: dict[str, list[Linear]] = {}
    for linear in linears:
        found.setdefault(key_of(linear), []).append(linear)
    return found


def first_other(block: nn.Module, linears: Iterable[Linear], stored: Tensor) -> Linear | None:
    """The first of a block's linears that is not what is stored; None if all are.

    Args:
        block: with weights.
        linears: which share a key.
        stored: what is stored under it.
    """
    for linear in linears:
        weight = linear.weight(block)
        if not torch.equal(weight, linear.stored_part(stored).to(weight.device, weight.dtype)):
            return linear
    return None


def write_pieces(block: nn.Module, masks: Mapping[Linear, Tensor], stored: Tensor) -> Tensor:
    """What is to be stored of pruned matrices that share a key; their weights are set to it.

    Args:
        block: pruned.
        masks: BoolTensor [out, in] of each, True = kept.
        stored: what their key holds in the source; it is changed and returned.

    Raises:
        InputError: a weight does not fit the dtype on disk.
    """
    for linear, mask in masks.items():
        weight, part = linear.weight(block).data, linear.stored_part(stored)
        value = merge(part.to(weight.device), weight, mask.to(weight.device))
        if not all_finite(value):
            raise InputError(f"{linear.full} does not fit {stored.dtype}, its dtype on disk, after pruning")
        part.copy_(value)
        weight.copy_(value)
    return stored


def merge(source: Tensor, computed: Tensor, mask: Tensor) -> Tensor:
    """Final weight in the source's dtype: zero where masked, the source's own bits where it did not move.

    Args:
        source: weight as on disk.
        computed: weight after pruning, of the same shape, in the dtype computed in.
        mask: BoolTensor of the same shape, True = kept.
    """
    unmoved = computed == source.to(computed.dtype)
    return keep_where(torch.where(unmoved, source, computed.to(source.dtype)), mask)
