"""What stands in a file for one weight: its values or whole numbers, where they stand, and scales."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.export.codec import Bits, decode, encode, kept_of
from tamp_lightning.export.form import CODES, FLOATS, SCALES
from tamp_lightning.ops.rounding import BITS, GROUP, from_codes, round_weight

Part = tuple[str, NDArray[Any]]
"""Dtype by its name in safetensors, and content."""


@dataclass(frozen=True)
class Rounding:
    """Which weights are stored as whole numbers.

    Attributes:
        name: a key of `ops.rounding.BITS`.
        keys: weights that are, whether they have zeros or not; of others those that are stored without their zeros.
        turned: of them stacks of matrices [in, out], whose inputs are rows.
    """

    name: str
    keys: frozenset[str]
    turned: frozenset[str] = frozenset()

    @property
    def bits(self) -> int:
        """Of a whole number."""
        return BITS[self.name]


def stored_parts(
    key: str, weight: Bits, dtype: str, kept: NDArray[np.bool_], rounding: Rounding | None
) -> dict[str, Part]:
    """Tensors to store for a weight by the ending of their key, in the form that takes the fewest bytes.

    Args:
        key: of the weight.
        weight: [o, c], or a stack [e, o, c] of several.
        dtype: its name in safetensors.
        kept: of the same shape; all bits of the others are zero.
        rounding: what becomes whole numbers; None = nothing.

    Raises:
        InputError: a weight that becomes whole numbers is infinite or NaN.
    """
    encoded = encode(_rows(weight), _rows(kept))
    as_it_is = {"": (dtype, weight)}
    smaller = {"": (dtype, encoded.values), CODES[encoded.kind]: ("U8", encoded.code)}
    best = smaller if encoded.nbytes < weight.nbytes else as_it_is
    if rounding is None or (best is as_it_is and key not in rounding.keys):
        return best
    try:
        codes, scales = _round(tensor_of(weight, dtype), rounding.bits, key in rounding.turned)
    except InputError as error:
        raise InputError(f"{key} cannot be stored as {rounding.name}: {error}") from None
    rounded = _whole_parts(codes, scales, kept, rounding.bits)
    return rounded if size_of(rounded) < size_of(best) else best


def size_of(parts: Mapping[str, Part]) -> int:
    """Bytes of all parts."""
    return sum(content.nbytes for _, content in parts.values())


def _rows(stack: NDArray[Any]) -> NDArray[Any]:
    """The rows of all matrices of a stack below each other."""
    return stack.reshape(-1, stack.shape[-1])


def _round(weight: Tensor, bits: int, turned: bool) -> tuple[Tensor, Tensor]:
    """Codes and scales of a weight or of a stack, matrix by matrix, both lying as it does."""
    if weight.ndim == 2:
        return round_weight(weight, bits)
    codes, scales = torch.empty(weight.shape, dtype=torch.int8), []
    for matrix, own in zip(weight, codes, strict=True):
        found, scale = round_weight(matrix.mT.contiguous() if turned else matrix, bits)
        own.copy_(found.mT if turned else found)
        scales.append(scale.mT if turned else scale)
    return codes, torch.stack(scales)


def _whole_parts(codes: Tensor, scales: Tensor, kept: NDArray[np.bool_], bits: int) -> dict[str, Part]:
    whole = _rows(codes.numpy().view(np.uint8))
    encoded = encode(whole, _rows(kept), bits / 8)
    sparse = {"": _packed(encoded.values, bits), CODES[encoded.kind]: ("U8", encoded.code)}
    dense = {"": _packed(whole.ravel(), bits)}
    smaller = sparse if size_of(sparse) < size_of(dense) else dense
    return {**smaller, SCALES: ("BF16", scales.contiguous().view(torch.int16).numpy().view(np.uint16))}


def _packed(codes: NDArray[np.uint8], bits: int) -> Part:
    """Whole numbers as they are stored: 8 bits each, or two to a byte, the first in the lower half."""
    if bits == 8:
        return "I8", codes
    even = np.append(codes, np.uint8(0)) if len(codes) % 2 else codes
    return "U8", (even[0::2] & 0x0F) | (even[1::2] << 4)


def unpacked(values: NDArray[Any], dtype: str, count: int) -> NDArray[np.uint8]:
    """The bits [count] of whole numbers, as `stored_parts` packed them.

    Raises:
        InputError: there are more or fewer.
    """
    if dtype == "I8":
        return values.view(np.uint8)
    if len(values) != -(-count // 2) or (count % 2 and values[-1] >> 4):
        raise InputError(f"it has {len(values)} bytes of values of 4 bits where {count} values are needed")
    both = np.stack([values << 4, values & 0xF0], 1).view(np.int8) >> 4
    return both.view(np.uint8).ravel()[:count]


@dataclass(frozen=True)
class Stored:
    """The parts of a weight as they were read, and what it is.

    Attributes:
        values: the weight itself, its kept values or its whole numbers.
        dtype: of the values, its name in safetensors.
        kind: a key of `CODES`; None = no value is left out.
        code: uint8 [bytes].
        scales: bits of bfloat16 [o, ceil(c / 128)], of a stack [e, o, ceil(c / 128)] or [e, ceil(o / 128), c]; None =
            the values are no whole numbers.
        shape: of the weight, (o, c), or of a stack, (e, o, c).
        wide: dtype of the weight.
    """

    values: Bits
    dtype: str
    kind: str | None
    code: NDArray[np.uint8] | None
    scales: NDArray[np.uint16] | None
    shape: tuple[int, ...]
    wide: str

    def restore(self) -> Tensor:
        """The weight, on the CPU; whole numbers times their scales are rounded to its dtype.

        Raises:
            InputError: the parts do not belong together.
        """
        if self.scales is None:
            return tensor_of(self._flat(self.values), self.wide).view(self.shape)
        *stack, o, c = self.shape
        turned = bool(stack) and self.scales.shape == (*stack, -(-o // GROUP), c)
        if self.dtype not in ("I8", "U8") or not (turned or self.scales.shape == (*stack, o, -(-c // GROUP))):
            raise InputError(f"its scales have shape {list(self.scales.shape)}, not that of a weight of {o} x {c}")
        count = math.prod(stack)
        codes = torch.from_numpy(self._flat(self._whole_numbers()).view(np.int8)).view(count, o, c)
        grids = tensor_of(self.scales, "BF16").view(count, *self.scales.shape[-2:])
        weight = torch.empty(codes.shape, dtype=FLOATS[self.wide])
        for own, part, grid in zip(weight, codes, grids, strict=True):
            own.copy_(from_codes(part.mT, grid.mT, own.dtype).mT if turned else from_codes(part, grid, own.dtype))
        return weight.view(self.shape)

    def _whole_numbers(self) -> NDArray[np.uint8]:
        count = math.prod(self.shape)
        if self.kind is not None and self.dtype == "U8":
            assert self.code is not None
            count = kept_count(self.kind, self.code, count, 2 * len(self.values))
        return unpacked(self.values.ravel(), self.dtype, count)

    def _flat(self, values: Bits) -> Bits:
        size = math.prod(self.shape)
        if self.kind is not None:
            assert self.code is not None
            return decode(values, self.kind, self.code, size)
        if values.size != size:
            raise InputError(f"it has {values.size} values where {size} are needed")
        return values.ravel()


def kept_count(kind: str, code: NDArray[np.uint8], size: int, most: int) -> int:
    """How many of `size` weights a code keeps, if that is at most `most` and no more than one less.

    Raises:
        InputError: it is not, or the code is damaged.
    """
    found = int(np.count_nonzero(kept_of(kind, code, size)))
    if not most - 1 <= found <= most:
        raise InputError(f"its {kind} marks {found} weights as kept, but {most} of 4 bits are stored")
    return found


def tensor_of(bits: NDArray[Any], dtype: str) -> Tensor:
    """A tensor of the bits, not copied, of the dtype that safetensors calls so."""
    wide = FLOATS[dtype]
    return torch.from_numpy(bits.view(f"i{bits.itemsize}")).view(wide)
