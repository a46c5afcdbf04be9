"""The CPU kernel's calls: a product with few inputs, and rows expanded; or None where it does not apply."""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from tamp_lightning.kernels.build import cpu_library
from tamp_lightning.kernels.form import WORD, Bitmask

MOST = 8
"""Inputs that are multiplied without expanding the weight."""
WORTH = 1 << 19
"""Weights that keep a thread busy for long enough (some 50 microseconds) to be worth waking."""
TYPES = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2, torch.int8: 3, torch.uint8: 4}
"""Numbers of the kernel's types by the dtype of values; uint8 holds two whole numbers of 4 bits."""
SETS = {0: "no vector instructions", 1: "AVX2", 2: "AVX-512 VBMI2"}


def serves(weight: Bitmask) -> bool:
    """Whether the kernel is there and knows the dtype of the values."""
    values = weight.values
    return values.device.type == "cpu" and values.dtype in TYPES and cpu_library() is not None


@cache
def best_set() -> int:
    """The best instruction set of this processor whose results are those without vectors, looked at once."""
    library = cpu_library()
    assert library is not None
    which: int = library.tamp_best_set()
    while which and not _agrees(which):
        which -= 1
    return which


def _agrees(which: int) -> bool:
    """Whether small whole numbers, whose products and sums are exact, come out as they do without vectors."""
    weight = ((torch.arange(37 * 200, device="cpu") * 7919) % 257 - 128).view(37, 200)
    inputs = (torch.arange(5 * 200, device="cpu", dtype=torch.float32) % 7 - 3).view(5, 200)
    kept = weight * (weight % 3 != 0)
    scales = torch.full((37, 2), 2.0, dtype=torch.bfloat16, device="cpu")
    numbers = kept[kept != 0].to(torch.int8)
    pairs = torch.nn.functional.pad(numbers, (0, len(numbers) % 2)).view(-1, 2)
    packed = ((pairs[:, 0] & 15) | (pairs[:, 1] << 4)).view(torch.uint8)
    forms = [Bitmask.of_dense(kept.to(dtype)) for dtype in (torch.bfloat16, torch.float16, torch.float32)]
    forms += [Bitmask.of_mask(values, kept != 0, scales, torch.bfloat16) for values in (numbers, packed)]
    for form in forms:
        if not torch.equal(multiply(form, inputs, None, which), multiply(form, inputs, None, 0)):
            return False
        if any(
            not torch.equal(expand(form, 3, 37, d, which), expand(form, 3, 37, d, 0))
            for d in (form.dtype, torch.float32)
        ):
            return False
    return True


def multiply(weight: Bitmask, inputs: Tensor, bias: Tensor | None, instructions: int | None = None) -> Tensor:
    """`inputs @ weight.T + bias`, summed in float32.

    Args:
        weight: [o, c], checked.
        inputs: [b, c] with b at most `MOST`.
        bias: [o].
        instructions: a key of `SETS`; None = the best that this processor has.

    Returns:
        [b, o] in the dtype of `inputs`.
    """
    library = cpu_library()
    assert library is not None
    rows, words = weight.rows, weight.mask.shape[1] // 8
    x = inputs.detach().float()
    x = functional.pad(x, (0, words * WORD - weight.columns)) if weight.columns % WORD else x.contiguous()
    b = None if bias is None else bias.detach().float().contiguous()
    out = x.new_empty(len(x), rows)
    library.tamp_multiply(
        best_set() if instructions is None else instructions,
        *_matrix(weight),
        ctypes.c_int64(rows),
        ctypes.c_int64(words),
        ctypes.c_void_p(x.data_ptr()),
        ctypes.c_int64(len(x)),
        ctypes.c_void_p(None if b is None else b.data_ptr()),
        ctypes.c_void_p(out.data_ptr()),
        _threads(rows * weight.columns),
    )
    return out.to(inputs.dtype)


def expand(weight: Bitmask, first: int, last: int, dtype: torch.dtype, instructions: int | None = None) -> Tensor:
    """Rows `first` to `last` [last - first, c] in the dtype of the values, or in float32."""
    library = cpu_library()
    assert library is not None
    words = weight.mask.shape[1] // 8
    whole = weight.scales is not None
    out = weight.values.new_empty(last - first, words * WORD, dtype=torch.float32 if whole else dtype)
    library.tamp_expand(
        best_set() if instructions is None else instructions,
        *_matrix(weight),
        ctypes.c_int64(words),
        ctypes.c_int64(first),
        ctypes.c_int64(last),
        int(whole or dtype != weight.dtype),
        ctypes.c_void_p(out.data_ptr()),
        _threads((last - first) * weight.columns),
    )
    return out[:, : weight.columns].to(dtype)


def _threads(weights: int) -> int:
    return max(1, min(torch.get_num_threads(), weights // WORTH))


def _matrix(weight: Bitmask) -> tuple[object, ...]:
    return (
        TYPES[weight.values.dtype],
        ctypes.c_void_p(weight.values.data_ptr()),
        ctypes.c_int64(weight.capacity),
        ctypes.c_void_p(weight.mask.data_ptr()),
        ctypes.c_void_p(weight.starts.data_ptr()),
        ctypes.c_int64(weight.starts.shape[1]),
        ctypes.c_void_p(None if weight.scales is None else weight.scales.data_ptr()),
        ctypes.c_int64(0 if weight.scales is None else weight.scales.shape[1]),
    )
