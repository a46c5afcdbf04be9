"""The product as operators that `torch.compile` takes into its graphs whole: they are not looked into."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tamp_lightning.kernels import product
from tamp_lightning.kernels.form import Bitmask

_FORM = "Tensor values, Tensor mask, Tensor starts, int columns, Tensor? scales, ScalarType? wide"


def linear(inputs: Tensor, weight: Bitmask, bias: Tensor | None) -> Tensor:
    """`product.linear` for a function that is being compiled."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    parts = weight.values, weight.mask, weight.starts, weight.columns, weight.scales, weight.wide
    return _linear(flat, *parts, bias).view(*inputs.shape[:-1], weight.rows)


@torch.library.custom_op(
    "tamp_lightning::linear", mutates_args=(), schema=f"(Tensor inputs, {_FORM}, Tensor? bias) -> Tensor"
)
def _linear(inputs: Tensor, *rest: Any) -> Tensor:
    *parts, bias = rest
    return product.forward(inputs, Bitmask(*parts), bias)


@_linear.register_fake
def _(inputs: Tensor, *rest: Any) -> Tensor:
    return inputs.new_empty(inputs.shape[0], rest[1].shape[0])


@torch.library.custom_op("tamp_lightning::transposed", mutates_args=(), schema=f"(Tensor gradient, {_FORM}) -> Tensor")
def _transposed(gradient: Tensor, *parts: Any) -> Tensor:
    return product.transposed(gradient, Bitmask(*parts))


@_transposed.register_fake
def _(gradient: Tensor, *parts: Any) -> Tensor:
    return gradient.new_empty(gradient.shape[0], parts[3])


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.parts = inputs[1:7]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    to_inputs, to_bias = ctx.needs_input_grad[0], ctx.needs_input_grad[7]
    back = _transposed(gradient, *ctx.parts) if to_inputs else None
    return back, *[None] * 6, product.bias_gradient(gradient) if to_bias else None


_linear.register_autograd(_backward, setup_context=_remember)
