"""The GPU kernel's calls: a product with few inputs, and the weight expanded."""

from __future__ import annotations

import torch
from torch import Tensor

from tamp_lightning.kernels import triton_source as source
from tamp_lightning.kernels.form import Bitmask

MOST = 8
"""Inputs that are multiplied without expanding the weight."""
ROWS = 4
"""Rows per program: 4,096 weights at a time, 32 for each thread of four warps."""
TYPES = {torch.bfloat16: 0, torch.float16: 0, torch.float32: 0, torch.int8: 8, torch.uint8: 4}
"""Bits of whole numbers by the dtype of values, 0 where they are weights; uint8 holds two of 4 bits."""


def serves(weight: Bitmask) -> bool:
    """Whether Triton is there and takes this weight."""
    return source.triton is not None and weight.values.is_cuda and weight.values.dtype in TYPES


def multiply(weight: Bitmask, inputs: Tensor, bias: Tensor | None) -> Tensor:
    """`inputs @ weight.T + bias`, summed in float32.

    Args:
        weight: [o, c], checked.
        inputs: [b, c] with b at most `MOST`.
        bias: [o].

    Returns:
        [b, o] in the dtype of `inputs`.
    """
    batch = 1 << max(0, len(inputs) - 1).bit_length()  # Triton's blocks are powers of two
    padded = torch.nn.functional.pad(inputs, (0, 0, 0, batch - len(inputs))).contiguous()
    out = inputs.new_empty(batch, weight.rows)
    source.multiply[(-(-weight.rows // ROWS),)](
        *_matrix(weight),
        padded,
        out if bias is None else bias,
        out,
        weight.rows,
        weight.columns,
        *_sizes(weight),
        BATCH=batch,
        ROWS=ROWS,
        BIAS=bias is not None,
        BITS=TYPES[weight.values.dtype],
        NATIVE=out.is_cuda,
    )
    return out[: len(inputs)]


def expand(weight: Bitmask) -> Tensor:
    """The weight [o, c] in its dtype, zeros filled in."""
    out = weight.values.new_empty(weight.rows, weight.columns, dtype=weight.dtype)
    source.expand[(-(-weight.rows // ROWS), weight.starts.shape[1])](
        *_matrix(weight),
        out,
        weight.rows,
        weight.columns,
        *_sizes(weight),
        ROWS=ROWS,
        BITS=TYPES[weight.values.dtype],
        NATIVE=out.is_cuda,
    )
    return out


def _matrix(weight: Bitmask) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    scales = weight.values if weight.scales is None else weight.scales  # something to point to
    return weight.values, weight.mask.view(torch.int32), weight.starts, scales


def _sizes(weight: Bitmask) -> tuple[int, int, int, int]:
    groups = 0 if weight.scales is None else weight.scales.shape[1]
    return weight.capacity, weight.mask.shape[1] // 4, weight.starts.shape[1], groups
