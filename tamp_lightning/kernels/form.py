"""A pruned weight in memory: its kept values or whole numbers, one bit per weight, and where rows start."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tamp_lightning.errors import InputError

WORD = 64
"""Columns of a row of the mask are filled up with zeros to a multiple of this."""
BLOCK = 1024
"""Columns per entry of `starts`."""
GROUP = 128
"""Columns of a row that share a scale, where values are whole numbers."""
_PIECE = 1 << 21
"""Weights that are looked at together where torch does the work."""


@dataclass(frozen=True)
class Bitmask:
    """A matrix [o, c] without its zeros.

    Attributes:
        values: [kept], row by row, in the dtype of the weight; or with `scales` int8 [kept], or uint8 [ceil(kept / 2)]
            with two numbers of 4 bits each, the first in the lower half.
        mask: uint8 [o, 8 * ceil(c / 64)]; bit `i % 8`, the lowest first, of byte `i // 8` of a row is column `i`.
        starts: int32 [o, ceil(c / 1024)], how many weights are kept before each 1024 columns of each row.
        columns: c.
        scales: bfloat16 [o, ceil(c / 128)], what the whole numbers are times; None = values are weights.
        wide: dtype of the weight where values are whole numbers.
    """

    values: Tensor
    mask: Tensor
    starts: Tensor
    columns: int
    scales: Tensor | None = None
    wide: torch.dtype | None = None

    @property
    def rows(self) -> int:
        """Number of output features o."""
        return self.mask.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weight."""
        return self.wide or self.values.dtype

    @property
    def values_name(self) -> str:
        """What the values are: int8, int4, or a dtype."""
        return "int4" if self.values.dtype == torch.uint8 else str(self.values.dtype).removeprefix("torch.")

    @property
    def capacity(self) -> int:
        """How many values there is room for: those that are kept, or with 4 bits perhaps one more."""
        return self.values.numel() * _per_element(self.values)

    @property
    def nbytes(self) -> int:
        """Bytes of everything."""
        return sum(part.numel() * part.element_size() for part in self._parts())

    def _parts(self) -> list[Tensor]:
        return [part for part in (self.values, self.mask, self.starts, self.scales) if part is not None]

    @classmethod
    def of_mask(
        cls, values: Tensor, kept: Tensor, scales: Tensor | None = None, wide: torch.dtype | None = None
    ) -> Bitmask:
        """From the kept values, row by row, and the mask.

        Args:
            values: as in the form.
            kept: bool [o, c].
            scales: as in the form.
            wide: as in the form.

        Raises:
            InputError: the mask keeps another number of weights than there are values, or more than 2^31.
        """
        return cls._checked(values, _pack(kept), kept.shape[1], scales, wide)

    @classmethod
    def of_packed(
        cls,
        values: Tensor,
        packed: Tensor,
        shape: tuple[int, int],
        scales: Tensor | None = None,
        wide: torch.dtype | None = None,
    ) -> Bitmask:
        """The same with `numpy.packbits` of the mask, uint8 [ceil(o * c / 8)].

        Raises:
            InputError: mask and values do not belong together.
        """
        rows, columns = shape
        if packed.shape != (-(-rows * columns // 8),):
            raise InputError(f"the mask has {_show(packed)} where {-(-rows * columns // 8)} bytes are needed")
        if columns % 8:
            kept = _bits(_reverse(packed).unsqueeze(0))[0, : rows * columns].view(rows, columns)
            return cls.of_mask(values, kept, scales, wide)
        mask = torch.nn.functional.pad(_reverse(packed).view(rows, columns // 8), (0, -(columns // 8) % 8))
        return cls._checked(values, mask.contiguous(), columns, scales, wide)

    @classmethod
    def of_dense(cls, weight: Tensor, kept: Tensor | None = None) -> Bitmask:
        """From the weight [o, c]; without a mask [o, c], what is not zero is kept."""
        kept = weight != 0 if kept is None else kept
        return cls.of_mask(weight[kept], kept)

    @classmethod
    def _checked(
        cls, values: Tensor, mask: Tensor, columns: int, scales: Tensor | None, wide: torch.dtype | None
    ) -> Bitmask:
        starts, total = _starts(mask, columns)
        if -(-total // _per_element(values)) != values.numel():
            raise InputError(f"the mask keeps {total} weights, but {values.numel() * _per_element(values)} are stored")
        found = cls(values.contiguous(), mask, starts, columns, None if scales is None else scales.contiguous(), wide)
        found._check_scales()
        return found

    def check(self) -> None:
        """Make sure that a kernel reads nothing beyond the values and the inputs.

        Raises:
            InputError: shapes, counts or bits do not belong together.
        """
        words, blocks = -(-self.columns // WORD), -(-self.columns // BLOCK)
        whole = self.mask.dtype == torch.uint8 and self.starts.dtype == torch.int32 and self.values.dim() == 1
        shapes = self.mask.shape == (self.rows, 8 * words) and self.starts.shape == (self.rows, blocks)
        if not (whole and shapes and all(part.is_contiguous() for part in (self.values, self.mask, self.starts))):
            parts = f"mask {_show(self.mask)} and starts {_show(self.starts)}"
            raise InputError(f"{parts} are not those of {self.columns} columns")
        if (rest := self.columns % WORD) and bool(_bits(self.mask[:, -8:])[:, rest:].any()):
            raise InputError("the mask keeps weights beyond the last column")
        starts, total = _starts(self.mask, self.columns)
        if -(-total // _per_element(self.values)) != self.values.numel() or not torch.equal(starts, self.starts):
            raise InputError(f"the mask keeps {total} weights where {self.capacity} are stored, or starts differ")
        self._check_scales()

    def _check_scales(self) -> None:
        whole = self.values.dtype in (torch.int8, torch.uint8)
        if self.scales is None and not whole:
            return
        if self.scales is None or not whole or self.wide is None:
            raise InputError(f"values of {self.values.dtype} {'without' if self.scales is None else 'with'} scales")
        shape = (self.rows, -(-self.columns // GROUP))
        if self.scales.dtype != torch.bfloat16 or self.scales.shape != shape or not self.scales.is_contiguous():
            raise InputError(f"scales {_show(self.scales)} are not those of {self.rows} x {self.columns} weights")

    def expand(self, first: int = 0, last: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """Rows `first` to `last` [last - first, c], zeros filled in, in `dtype` or else in that of the weight.

        Whole numbers times their scales are rounded once, to the dtype asked for.
        """
        last = self.rows if last is None else last
        dense = self.values.new_empty(last - first, self.columns, dtype=dtype or self.dtype)
        step = max(1, _PIECE // max(1, self.columns))
        for start in range(first, last, step):
            stop = min(last, start + step)
            kept = _bits(self.mask[start:stop])[:, : self.columns]
            values = self._values(self._start(start), self._start(stop))
            piece = torch.zeros_like(kept, dtype=values.dtype).masked_scatter_(kept, values)
            if self.scales is not None:
                piece = piece.float().mul_(
                    self.scales[start:stop].float().repeat_interleave(GROUP, 1)[:, : self.columns]
                )
            dense[start - first : stop - first] = piece
        return dense

    def _values(self, first: int, last: int) -> Tensor:
        if self.values.dtype != torch.uint8:
            return self.values[first:last]
        pairs = self.values[first // 2 : -(-last // 2)]
        both = torch.stack([pairs << 4, pairs], -1).view(torch.int8) >> 4
        return both.flatten()[first % 2 :][: last - first]

    def _start(self, row: int) -> int:
        return self.capacity if row == self.rows else int(self.starts[row, 0])


def _per_element(values: Tensor) -> int:
    """Values that an element holds."""
    return 2 if values.dtype == torch.uint8 else 1


def _show(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}".removeprefix("torch.")


def _bits(mask: Tensor) -> Tensor:
    """Bool [rows, 8 * bytes] of the packed bits [rows, bytes]."""
    places = torch.arange(8, dtype=torch.uint8, device=mask.device)
    return ((mask.unsqueeze(-1) >> places) & 1).view(torch.bool).flatten(1)


def _pack(kept: Tensor) -> Tensor:
    rows, columns = kept.shape
    mask = torch.zeros(rows, 8 * -(-columns // WORD), dtype=torch.uint8, device=kept.device)
    step = max(1, _PIECE // max(1, columns))
    for start in range(0, rows, step):
        piece = torch.zeros(len(mask[start : start + step]), 8 * mask.shape[1], dtype=torch.uint8, device=kept.device)
        piece[:, :columns] = kept[start : start + step]
        for place in range(8):
            mask[start : start + step] |= piece[:, place::8] << place
    return mask


def _starts(mask: Tensor, columns: int) -> tuple[Tensor, int]:
    """Weights kept before each block of columns int32 [o, blocks], and in all."""
    words, blocks = mask.view(torch.int64), -(-columns // BLOCK)
    counts = torch.empty(len(mask), blocks, dtype=torch.int64, device=mask.device)
    width = BLOCK // WORD
    step = max(1, _PIECE // max(1, columns))
    for start in range(0, len(mask), step):
        ones = _popcount(words[start : start + step])
        ones = torch.nn.functional.pad(ones, (0, blocks * width - ones.shape[1]))
        counts[start : start + step] = ones.unflatten(1, (blocks, width)).sum(-1)
    ends = counts.flatten().cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    if total >= 1 << 31:
        raise InputError(f"the mask keeps {total} weights, at most {(1 << 31) - 1} fit into one linear")
    return (ends - counts.flatten()).to(torch.int32).view(counts.shape), total


def _popcount(words: Tensor) -> Tensor:
    """Ones of each int64: pairs of bits are added up, then fours, then bytes (Warren, Hacker's Delight, 5-1)."""
    words = words - ((words >> 1) & 0x5555555555555555)
    words = (words & 0x3333333333333333) + ((words >> 2) & 0x3333333333333333)
    words = (words + (words >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (words * 0x0101010101010101) >> 56


def _reverse(packed: Tensor) -> Tensor:
    """The bits of each byte in the other order."""
    packed = (packed >> 4) | (packed << 4)
    packed = ((packed & 0xCC) >> 2) | ((packed & 0x33) << 2)
    return ((packed & 0xAA) >> 1) | ((packed & 0x55) << 1)
