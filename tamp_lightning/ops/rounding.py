"""Weights as whole numbers times a scale per group of columns: symmetric, to the nearest, zeros stay zeros."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from tamp_lightning.errors import InputError
from tamp_lightning.ops.masks import all_finite

GROUP = 128
"""Consecutive columns of a row that share a scale."""
BITS = {"int8": 8, "int4": 4}
"""Bits of a whole number, by name."""
PROBE = 16
"""Groups of a matrix that have to be rounded ones before it is believed to be rounded."""
_PIECE = 1 << 22
"""Weights that are looked at together."""
_LEAST = torch.finfo(torch.float32).tiny


def largest(bits: int) -> int:
    """The largest whole number: 127 of 8 bits, 7 of 4; the smallest is its negative."""
    return (1 << (bits - 1)) - 1


def group_scales(weight: Tensor, bits: int) -> Tensor:
    """Scales under which the largest weight of each group is the largest whole number.

    Args:
        weight: [o, c], any floating dtype.
        bits: 8 or 4.

    Returns:
        bfloat16 [o, ceil(c / 128)], 0 where a group is all zeros.
    """
    return (_peaks(_groups(weight)) / largest(bits)).bfloat16()


def snap(values: Tensor, scales: Tensor, bits: int) -> Tensor:
    """Nearest whole numbers, from -largest to largest, of float32 values under float32 scales that broadcast."""
    most = largest(bits)
    return (values / scales.clamp(min=_LEAST)).round_().clamp_(-most, most)


def from_codes(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight [o, c] in `dtype`: each product of code [o, c] and scale [o, ceil(c / 128)] is rounded once, to it."""
    wide = scales.float().repeat_interleave(GROUP, 1)[:, : codes.shape[1]]
    return (codes.float() * wide).to(dtype)


def round_weight(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes and scales of a weight; one that was rounded already keeps its values exactly.

    Scales are searched for that give back every bit of a group: rounded to bfloat16 or float16, the largest weight of
    a group no longer says them by itself, and after a sweep (`ops.obs.sparsegpt`) it need not be the largest number
    times the scale. Where the first groups are not of that kind, none is, and scales are those of `group_scales`.

    Args:
        weight: [o, c], any floating dtype.
        bits: 8 or 4.

    Returns:
        int8 [o, c] and bfloat16 [o, ceil(c / 128)].

    Raises:
        InputError: a weight is infinite or NaN.
    """
    if not all_finite(weight.float()):
        raise InputError("it has weights that are infinite or NaN, which whole numbers cannot stand for")
    probe = _nonzero_groups(weight)
    every = torch.arange(largest(bits), 0, -1, device=weight.device)
    rounded = bool(_gives_back(probe, _near(_peaks(probe), every), bits).any(0).all())
    codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scales = weight.new_empty(len(weight), -(-weight.shape[1] // GROUP), dtype=torch.bfloat16)
    for rows in _pieces(weight):
        part = weight[rows]
        found = _search(_groups(part).flatten(0, 1), bits) if rounded else group_scales(part, bits)
        scales[rows] = found.view_as(scales[rows])
        wide = scales[rows].float().repeat_interleave(GROUP, 1)[:, : weight.shape[1]]
        codes[rows] = snap(part.float(), wide, bits).to(torch.int8)
    return codes, scales


class Grid:
    """What a sweep over the columns of a weight rounds to; scales are found when it comes to their group.

    Args:
        bits: 8 or 4.
        weight: [o, c], before the sweep.
        dead: bool [c], columns that the sweep holds at zero.
        step: columns of a block, in which the sweep has no group but whole ones.

    Raises:
        InputError: a block ends within a group.
    """

    def __init__(self, bits: int, weight: Tensor, dead: Tensor, step: int) -> None:
        if step % GROUP:
            raise InputError(f"a block has {step} columns; rounded values need a multiple of {GROUP}.")
        self.bits, self.weight, self.dead = bits, weight, dead
        self.scales: list[Tensor] = []

    def next_group(self, columns: Tensor, keep: Tensor) -> None:
        """Take the scales of the next group, both [128 or fewer, o]; those of dead columns are as they were."""
        start = GROUP * len(self.scales)
        dead = self.dead[start : start + GROUP, None]
        before = self.weight[:, start : start + GROUP].T.float()
        now = torch.where(dead, before, columns) * keep
        self.scales.append(group_scales(now.T, self.bits)[:, 0].float())

    def nearest(self, column: Tensor) -> Tensor:
        """A column [o] of the last group, rounded: first to the grid, then to the dtype of the weight."""
        scale = self.scales[-1]
        return (snap(column, scale, self.bits) * scale).to(self.weight.dtype).float()

    def dead_weights(self) -> Tensor:
        """The dead columns of the weight, float32 [o, dead], rounded."""
        columns = self.dead.nonzero()[:, 0]
        scales = torch.stack(self.scales, 1)[:, columns // GROUP]
        before = self.weight[:, columns].float()
        return (snap(before, scales, self.bits) * scales).to(self.weight.dtype).float()


def _search(groups: Tensor, bits: int) -> Tensor:
    """Scales bfloat16 [g] of groups [g, 128] that give back every bit; where there is none, those of `group_scales`."""
    peaks = _peaks(groups)
    scales = (peaks / largest(bits)).bfloat16()
    left = torch.arange(len(groups), device=groups.device)
    for most in range(largest(bits), 0, -1):  # the whole number that the largest weight may be
        for step in range(3):
            if not len(left):
                return scales
            tried = _near(peaks[left], torch.tensor([most], device=groups.device))[step]
            fits = _gives_back(groups[left], tried, bits)
            scales[left[fits]] = tried[fits]
            left = left[~fits]
    return scales


def _near(peaks: Tensor, most: Tensor) -> Tensor:
    """bfloat16 [3 * m, g]: scales under which weights [g] are one of whole numbers [m], and their neighbours."""
    near = (peaks / most[:, None]).bfloat16().view(torch.int16)
    steps = torch.tensor([0, -1, 1], dtype=torch.int16, device=peaks.device)
    return (near[:, None] + steps[:, None]).clamp_(min=0).flatten(0, 1).view(torch.bfloat16)


def _gives_back(groups: Tensor, scales: Tensor, bits: int) -> Tensor:
    """Bool like scales [..., g]: whether rounding groups [g, 128] under them changes no bit."""
    wide = scales.float()[..., None]
    return ((snap(groups.float(), wide, bits) * wide).to(groups.dtype) == groups).all(-1)


def _groups(weight: Tensor) -> Tensor:
    """[o, ceil(c / 128), 128], filled up with zeros."""
    groups = -(-weight.shape[1] // GROUP)
    return pad(weight, (0, GROUP * groups - weight.shape[1])).view(len(weight), groups, GROUP)


def _peaks(groups: Tensor) -> Tensor:
    return groups.abs().amax(-1).float()


def _nonzero_groups(weight: Tensor) -> Tensor:
    """The first groups [at most 64, 128] with a weight that is not zero."""
    rows = max(1, 16 * PROBE * GROUP // max(1, weight.shape[1]))
    groups = _groups(weight[:rows]).flatten(0, 1)
    return groups[groups.any(1)][:PROBE]


def _pieces(weight: Tensor) -> Iterator[slice]:
    step = max(1, _PIECE // max(1, weight.shape[1]))
    return (slice(start, start + step) for start in range(0, len(weight), step))
