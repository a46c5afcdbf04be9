"""A sparse matrix as its surviving values and a code of where they stand. Works on bits, so nothing is rounded.

Numbers are never looked at as floats: a weight is an integer of its width whose bits are what is stored. Zero means
that all bits are zero; -0.0 is a value like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamp_lightning.errors import InputError

Bits = NDArray[Any]
"""Weights as integers of their width."""

BITMASK, POSITIONS = "bitmask", "positions"
GROUPS = (2, 4, 8, 16)
"""Lengths m of the groups that positions are tried for."""
_CHUNK = 1 << 16  # a multiple of 8; small enough for the indices to stay in the processor's cache
_PROBE = 64


@dataclass(frozen=True)
class Encoded:
    """A matrix without its zeros.

    Attributes:
        values: [kept], in row order.
        kind: BITMASK or POSITIONS.
        code: uint8 [bytes], where the values stand.
    """

    values: Bits
    kind: str
    code: NDArray[np.uint8]

    @property
    def nbytes(self) -> int:
        """Bytes of values and code."""
        return self.values.nbytes + self.code.nbytes


def encode(weight: Bits, kept: NDArray[np.bool_], itemsize: float | None = None) -> Encoded:
    """The smaller one of a bitmask and, where every group of m inputs keeps at most n, positions.

    Args:
        weight: [o, c]; all bits are zero where `kept` is False.
        kept: [o, c].
        itemsize: bytes that a value will take; None = those that it takes here.
    """
    pattern = find_pattern(kept, itemsize or weight.itemsize)
    if pattern is None:
        return Encoded(_take(weight.ravel(), kept.ravel()), BITMASK, np.packbits(kept))
    filled = fill_groups(kept, *pattern)
    return Encoded(_take(weight.ravel(), filled.ravel()), POSITIONS, _pack_positions(filled, *pattern))


def decode(values: Bits, kind: str, code: NDArray[np.uint8], size: int) -> Bits:
    """The matrix [size], in row order, that `encode` was given.

    Raises:
        InputError: values, code and size do not belong together.
    """
    dense = np.zeros(size, dtype=values.dtype)
    used = 0
    for start, kept in _kept_chunks(kind, code, size):
        where = np.flatnonzero(kept)
        part = values[used : used + len(where)]
        if len(part) < len(where):
            raise InputError(f"its {kind} marks more weights as kept than the {len(values)} that are stored")
        dense[start : start + len(kept)][where] = part
        used += len(where)
    if used < len(values):
        raise InputError(f"its {kind} marks {used} weights as kept, but {len(values)} are stored")
    return dense


def kept_of(kind: str, code: NDArray[np.uint8], size: int) -> NDArray[np.bool_]:
    """The mask [size], in row order, that a code stands for.

    Raises:
        ValueError: code and size do not belong together.
    """
    return np.concatenate([np.zeros(0, dtype=bool), *(kept for _, kept in _kept_chunks(kind, code, size))])


def find_pattern(kept: NDArray[np.bool_], itemsize: float) -> tuple[int, int] | None:
    """The n:m whose positions take fewer bytes than the bitmask, values included; None if there is none.

    Args:
        kept: [o, c].
        itemsize: bytes of a value.
    """
    best, smallest = None, int(np.count_nonzero(kept)) * itemsize + -(-kept.size // 8)
    for m in GROUPS:
        if kept.shape[1] % m or _most(kept[:_PROBE], m) == m:
            continue
        n = _most(kept, m)
        groups = kept.size // m
        if 0 < n < m and (size := groups * n * itemsize + 2 + -(-groups * code_width(n, m) // 8)) < smallest:
            best, smallest = (n, m), size
    return best


def fill_groups(kept: NDArray[np.bool_], n: int, m: int) -> NDArray[np.bool_]:
    """`kept` with the first free places added where a group keeps fewer than n, so that all keep n."""
    groups = kept.reshape(-1, m)
    missing = n - groups.sum(1, dtype=np.int8)
    if not missing.any():
        return kept
    free = ~groups
    free &= free.cumsum(1, dtype=np.int8) <= missing[:, None]
    return (groups | free).reshape(kept.shape)


def code_width(n: int, m: int) -> int:
    """Bits that tell the comb(m, n) ways to keep n of m apart."""
    return (comb(m, n) - 1).bit_length()


@cache
def ways(n: int, m: int) -> NDArray[np.bool_]:
    """Bool [comb(m, n), m]: the m-bit numbers with n ones, ascending, highest bit first."""
    numbers = np.arange(1 << m, dtype=np.uint32)
    bits = ((numbers[:, None] >> np.arange(m - 1, -1, -1, dtype=np.uint32)) & 1).astype(bool)
    return bits[bits.sum(1) == n]


def _most(kept: NDArray[np.bool_], m: int) -> int:
    """Most weights that a group of m keeps."""
    return int(kept.reshape(-1, m).sum(1, dtype=np.uint8).max(initial=0))


def _take(flat: Bits, kept: NDArray[np.bool_]) -> Bits:
    chunks = [
        flat[start : start + _CHUNK].take(np.flatnonzero(kept[start : start + _CHUNK]))
        for start in range(0, len(flat), _CHUNK)
    ]
    return np.concatenate(chunks) if chunks else flat[:0]


def _pack_positions(kept: NDArray[np.bool_], n: int, m: int) -> NDArray[np.uint8]:
    weights = (1 << np.arange(m - 1, -1, -1)).astype(np.uint16)
    rank_of = np.zeros(1 << m, dtype=np.uint16)
    rank_of[ways(n, m) @ weights] = np.arange(comb(m, n))
    width = code_width(n, m)
    digits = np.arange(width - 1, -1, -1, dtype=np.uint16)
    parts = []
    for start in range(0, kept.size, _CHUNK):  # so many groups fill whole bytes
        ranks = rank_of[kept.ravel()[start : start + _CHUNK].reshape(-1, m) @ weights]
        parts.append(np.packbits(((ranks[:, None] >> digits) & 1).astype(np.uint8)))
    return np.concatenate([np.array([n, m], dtype=np.uint8), *parts])


def _kept_chunks(kind: str, code: NDArray[np.uint8], size: int) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """First weight and mask of stretches of the flat matrix."""
    if kind == BITMASK:
        _check_length(kind, code, size)
        for start in range(0, size, _CHUNK):
            count = min(_CHUNK, size - start)
            yield start, np.unpackbits(code[start // 8 : (start + count + 7) // 8], count=count).view(bool)
        return
    n, m = (int(code[0]), int(code[1])) if len(code) >= 2 else (0, 0)
    if m not in GROUPS or not 0 < n < m or size % m:
        raise InputError(f"its positions are for {n}:{m} in {size} weights, which is not a pattern of this layout")
    width, table = code_width(n, m), ways(n, m)
    _check_length(kind, code[2:], size // m * width)
    digits = (1 << np.arange(width - 1, -1, -1)).astype(np.uint16)
    for start in range(0, size, _CHUNK):
        groups = min(_CHUNK, size - start) // m
        first = start // m * width
        bits = np.unpackbits(code[2 + first // 8 : 2 + (first + groups * width + 7) // 8], count=groups * width)
        ranks = bits.reshape(groups, width) @ digits
        if groups and int(ranks.max()) >= len(table):
            raise InputError(f"its positions hold {int(ranks.max())}, but {n}:{m} has {len(table)} ways only")
        yield start, table[ranks].ravel()


def _check_length(kind: str, code: NDArray[np.uint8], bits: int) -> None:
    """Refuse a code of another length, or with something after its last bit."""
    if len(code) != -(-bits // 8):
        raise InputError(f"its {kind} has {len(code)} bytes where {-(-bits // 8)} are needed")
    if bits % 8 and int(code[-1]) & (0xFF >> bits % 8):
        raise InputError(f"its {kind} has bits after the last weight")
