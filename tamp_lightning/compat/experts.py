"""Layers of experts as transformers keeps and runs them: what its registry of experts functions takes for granted.

A class that its `use_experts_implementation` decorates holds `gate_up_proj` (or `up_proj`) and `down_proj` with one
matrix per expert, and says by attributes how they lie. It is called with the hidden states of tokens [T,h], the numbers
of their experts [T,k] and the weights of these [T,k]. tests/compat names what a release moved.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

__all__ = ["FLAGS", "Matrix", "activated", "are_experts", "expert_count", "expert_matrices", "projected", "put_out"]

FLAGS = ("has_gate", "has_bias", "is_transposed", "is_concatenated", "_apply_gate")
"""Attributes of a decorated module that are read here."""


class Matrix(NamedTuple):
    """One of the matrices that every expert of a layer has."""

    name: str
    parameter: str
    """The layer's parameter that stacks it, expert by expert."""
    rows: tuple[int, int | None, int]
    """Start, stop and step of its outputs among those that are kept together."""
    transposed: bool
    """Whether it is kept as [in, out]."""
    reads_hidden: bool
    """Whether it reads the layer's input; otherwise what the matrices that do so give, after the activation."""


def are_experts(module: nn.Module) -> bool:
    """Whether a module is a layer of experts that transformers runs through its registry of experts functions."""
    if not all(hasattr(module, flag) for flag in FLAGS):
        return False
    found = dict(module.named_parameters(recurse=False))
    first = "gate_up_proj" if module.has_gate else "up_proj"
    return all(name in found and found[name].ndim == 3 for name in (first, "down_proj"))


def expert_count(module: nn.Module) -> int:
    """Number of experts of a layer."""
    return len(module.get_parameter("down_proj"))


def expert_matrices(module: nn.Module) -> list[Matrix]:
    """The matrices of each expert, those that read the layer's input first."""
    turned = bool(module.is_transposed)
    down = Matrix("down_proj", "down_proj", (0, None, 1), turned, False)
    if not module.has_gate:
        return [Matrix("up_proj", "up_proj", (0, None, 1), turned, True), down]
    both = module.get_parameter("gate_up_proj").shape[-1 if turned else -2]
    halves = ((0, both // 2, 1), (both // 2, None, 1)) if module.is_concatenated else ((0, None, 2), (1, None, 2))
    names = zip(("gate_proj", "up_proj"), halves, strict=True)
    return [*(Matrix(name, "gate_up_proj", rows, turned, True) for name, rows in names), down]


def projected(module: nn.Module, expert: int, tokens: Tensor) -> Tensor:
    """What an expert's matrices that read the layer's input make of tokens [m,h], gate and up as they are kept."""
    return _product(module, "gate_up_proj" if module.has_gate else "up_proj", expert, tokens)


def activated(module: nn.Module, projection: Tensor) -> Tensor:
    """What `down_proj` reads [m,f], of what `projected` gave."""
    apply = cast(Any, module._apply_gate if module.has_gate else module.act_fn)
    return apply(projection)


def put_out(module: nn.Module, expert: int, activation: Tensor) -> Tensor:
    """What an expert's `down_proj` makes [m,h] of what `activated` gave, before it is weighed."""
    return _product(module, "down_proj", expert, activation)


def _product(module: nn.Module, name: str, expert: int, tokens: Tensor) -> Tensor:
    weight = module.get_parameter(name)[expert]
    bias = module.get_parameter(f"{name}_bias")[expert] if module.has_bias else None
    return torch.nn.functional.linear(tokens, weight.mT if module.is_transposed else weight, bias)
