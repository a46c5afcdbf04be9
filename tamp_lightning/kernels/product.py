"""Linear maps with a compressed weight, whichever way is fastest, and their gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tamp_lightning.kernels import cpu, gpu
from tamp_lightning.kernels.form import Bitmask

TILE = 1 << 20
"""Weights that are expanded at a time on a CPU: few enough to stay in its cache."""
_UNITS = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}


def linear(inputs: Tensor, weight: Bitmask, bias: Tensor | None) -> Tensor:
    """`inputs @ weight.T + bias`, as `torch.nn.functional.linear`; the weight gets no gradient.

    Args:
        inputs: [..., c].
        weight: [o, c], checked.
        bias: [o].
    """
    flat = inputs.reshape(-1, inputs.shape[-1])
    if torch.is_grad_enabled() and (flat.requires_grad or (bias is not None and bias.requires_grad)):
        out = _Product.apply(flat, weight, bias)
    else:
        out = forward(flat, weight, bias)
    return out.view(*inputs.shape[:-1], weight.rows)


class _Product(torch.autograd.Function):
    """The product; backward expands the weight once more."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Bitmask, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return forward(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        gradient, weight = gradients[0], ctx.weight
        to_inputs, _, to_bias = ctx.needs_input_grad
        return (
            transposed(gradient, weight) if to_inputs else None,
            None,
            bias_gradient(gradient) if to_bias else None,
        )


def bias_gradient(gradient: Tensor) -> Tensor:
    """Sum over inputs of the gradient [b, o] -> [o], in float32."""
    return gradient.float().sum(0).to(gradient.dtype)


def transposed(gradient: Tensor, weight: Bitmask) -> Tensor:
    """`gradient @ weight`: [b, o] -> [b, c]."""
    dtype = compute_dtype(weight)
    total = gradient.new_zeros(len(gradient), weight.columns, dtype=dtype)
    for first, rows in tiles(weight, dtype):
        total.addmm_(gradient[:, first : first + len(rows)].to(dtype), rows)
    return total.to(gradient.dtype)


def forward(inputs: Tensor, weight: Bitmask, bias: Tensor | None) -> Tensor:
    """The product [b, o] of inputs [b, c], without a gradient."""
    if len(inputs) <= cpu.MOST and inputs.device.type == "cpu" and cpu.serves(weight):
        return cpu.multiply(weight, inputs, bias)
    if 0 < len(inputs) <= gpu.MOST and inputs.is_cuda and gpu.serves(weight):
        return gpu.multiply(weight, inputs, bias)
    dtype = compute_dtype(weight)
    x, b = inputs.to(dtype), None if bias is None else bias.to(dtype)
    out = inputs.new_empty(len(inputs), weight.rows)
    for first, rows in tiles(weight, dtype):
        last = first + len(rows)
        out[:, first:last] = functional.linear(x, rows, None if b is None else b[first:last])
    return out


def tiles(weight: Bitmask, dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
    """First row and expanded rows, a few at a time; all at once on a GPU, where small products are slow."""
    if gpu.serves(weight):
        yield 0, gpu.expand(weight).to(dtype)
        return
    step = weight.rows if weight.values.is_cuda else max(1, TILE // max(1, weight.columns))
    kernel = cpu.serves(weight)
    for first in range(0, weight.rows, step):
        last = min(weight.rows, first + step)
        yield first, cpu.expand(weight, first, last, dtype) if kernel else weight.expand(first, last, dtype)


def compute_dtype(weight: Bitmask) -> torch.dtype:
    """What larger products are computed in: float32 where a CPU has no units for the narrower type of the weight."""
    if weight.values.device.type != "cpu" or weight.dtype not in _UNITS:
        return weight.dtype
    supported = getattr(torch.ops.mkldnn, _UNITS[weight.dtype])
    return weight.dtype if supported() else torch.float32
