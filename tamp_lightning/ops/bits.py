"""Masks as bits: eight weights to a byte, in row order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

_GATHER = 0x8040201008040201 - 2**64


def pack_bits(mask: Tensor) -> Tensor:
    """Bits of a bool mask in row order, eight to a uint8, the first in the highest bit; the tail is zero.

    Examples:
        >>> mask = torch.tensor([[True, False, True], [True, True, False], [False, False, True]])
        >>> [f"{byte:08b}" for byte in pack_bits(mask).tolist()]
        ['10111000', '10000000']
        >>> bool((unpack_bits(pack_bits(mask), mask.shape) == mask).all())
        True
    """
    flat = mask.flatten().cpu().view(torch.uint8)
    # eight bool bytes are one (little-endian) int64: the product moves byte k to bit 7 - k of the highest byte
    eight = torch.nn.functional.pad(flat, (0, -len(flat) % 8)).view(torch.int64)
    return (eight * _GATHER >> 56).to(torch.uint8)


def unpack_bits(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """Bool mask of `shape` whose packed bits these are, on the CPU; the inverse of `pack_bits`."""
    flat = (bits[:, None] >> torch.arange(7, -1, -1, dtype=torch.uint8)) & 1
    return flat.flatten()[: torch.Size(shape).numel()].view(*shape).bool()


def bits_sha256(bits: Tensor) -> str:
    """Hash of packed bits."""
    return hashlib.sha256(bits.numpy().tobytes()).hexdigest()


def mask_sha256(mask: Tensor) -> str:
    """Hash of a mask's packed bits."""
    return bits_sha256(pack_bits(mask))
