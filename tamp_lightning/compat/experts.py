"""Layers of experts as transformers keeps and runs them: what its registry of experts functions takes for granted.

A class that its `use_experts_implementation` decorates holds `gate_up_proj` (or `up_proj`) and `down_proj` with one
matrix per expert, and says by attributes how they lie. It is called with the hidden states of tokens [T,h], the numbers
of their experts [T,k] and the weights of these [T,k]. Three classes that the registry does not run are known by name.
tests/compat names what a release moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

__all__ = [
    "FLAGS",
    "Call",
    "Matrix",
    "activated",
    "are_experts",
    "call_of",
    "choice_count",
    "expert_count",
    "expert_matrices",
    "gates_inputs",
    "projected",
    "put_out",
    "token_count",
]

FLAGS = ("has_gate", "has_bias", "is_transposed", "is_concatenated", "_apply_gate")
"""Attributes of a decorated module that are read here."""


@dataclass(frozen=True)
class _Layout:
    """How a layer keeps its matrices and how it is called."""

    has_gate: bool = True
    has_bias: bool = False
    is_transposed: bool = False
    is_concatenated: bool = True
    gates_inputs: bool = False
    """Whether it is called with [E * T, h] alone: for each expert all tokens, times their gates, which are 0 where a
    token is not sent to the expert."""


_OWN = {
    "transformers.models.llama4.modeling_llama4.Llama4TextExperts": _Layout(is_transposed=True, gates_inputs=True),
    "transformers.models.step3p7.modeling_step3p7.Step3p7Experts": _Layout(),
    "transformers.models.longcat_flash.modeling_longcat_flash.LongcatFlashExperts": _Layout(),
}
"""Classes that the registry does not run: nothing in them says how their matrices lie."""


class Call(NamedTuple):
    """What a layer of experts was called with, whichever way, and what it gave; T tokens."""

    hidden: Tensor
    """[m, h]: what experts read. Tokens, or, where gates weigh inputs, pairs of token and expert."""
    chosen: Tensor
    """[m, k]: experts of each row; a number from the count of experts on is nobody's."""
    gates: Tensor
    """[m, k]: their weights in the layer's output."""
    tokens: Tensor
    """[m] int64, ascending: which of the T tokens each row is."""
    output: Tensor
    """[T, h]: sum over experts."""


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


def _layout(module: nn.Module) -> _Layout | None:
    """How a layer keeps its matrices, if that is known."""
    kind = type(module)
    own = _OWN.get(f"{kind.__module__}.{kind.__qualname__}")
    if own is None and all(hasattr(module, flag) for flag in FLAGS):
        own = _Layout(**{flag: bool(getattr(module, flag)) for flag in FLAGS if not flag.startswith("_")})
    return own


def are_experts(module: nn.Module) -> bool:
    """Whether a module is a layer of experts of which it is known how it keeps them and which tokens each gets."""
    layout = _layout(module)
    if layout is None:
        return False
    found = dict(module.named_parameters(recurse=False))
    first = "gate_up_proj" if layout.has_gate else "up_proj"
    return all(name in found and found[name].ndim == 3 for name in (first, "down_proj"))


def _known(module: nn.Module) -> _Layout:
    layout = _layout(module)
    assert layout is not None
    return layout


def gates_inputs(module: nn.Module) -> bool:
    """Whether experts of a layer read tokens times gates, and only those that are sent to them."""
    return _known(module).gates_inputs


def token_count(module: nn.Module, inputs: Tensor) -> int:
    """How many tokens a layer of experts is called with, of its first argument."""
    rows = inputs[..., 0].numel()
    return rows // expert_count(module) if _known(module).gates_inputs else rows


def call_of(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Call:
    """Which tokens each expert of a layer got in a call, from the arguments and what came of them.

    Where gates weigh inputs, an expert reads x * gate, and its output has the weight 1. The tokens that it gets are
    those of which anything is not zero: of a token that is all zero there is nothing to learn.
    """
    hidden, width = given[0].reshape(-1, given[0].shape[-1]), output.shape[-1]
    if not _known(module).gates_inputs:
        _, index, gates = given
        return Call(hidden, index, gates, torch.arange(len(hidden), device=hidden.device), output.reshape(-1, width))
    by_expert = hidden.reshape(expert_count(module), -1, hidden.shape[-1])
    tokens, experts = by_expert.ne(0).any(-1).T.nonzero(as_tuple=True)
    rows, index = by_expert[experts, tokens], experts[:, None]
    whole = output.reshape(len(by_expert), -1, width).sum(0)
    return Call(rows, index, torch.ones_like(index, dtype=rows.dtype), tokens, whole)


def expert_count(module: nn.Module) -> int:
    """Number of experts of a layer."""
    return len(module.get_parameter("down_proj"))


def choice_count(module: nn.Module) -> int:
    """Number of what a router chooses among: experts, and those of LongCat-Flash that hand tokens on as they are."""
    return max(len(value) for value in module.parameters(recurse=False))


def expert_matrices(module: nn.Module) -> list[Matrix]:
    """The matrices of each expert, those that read the layer's input first."""
    layout = _known(module)
    turned = layout.is_transposed
    down = Matrix("down_proj", "down_proj", (0, None, 1), turned, False)
    if not layout.has_gate:
        return [Matrix("up_proj", "up_proj", (0, None, 1), turned, True), down]
    both = module.get_parameter("gate_up_proj").shape[-1 if turned else -2]
    halves = ((0, both // 2, 1), (both // 2, None, 1)) if layout.is_concatenated else ((0, None, 2), (1, None, 2))
    names = zip(("gate_proj", "up_proj"), halves, strict=True)
    return [*(Matrix(name, "gate_up_proj", rows, turned, True) for name, rows in names), down]


def projected(module: nn.Module, expert: int, tokens: Tensor) -> Tensor:
    """What an expert's matrices that read the layer's input make of tokens [m,h], gate and up as they are kept."""
    return _product(module, "gate_up_proj" if _known(module).has_gate else "up_proj", expert, tokens)


def activated(module: nn.Module, projection: Tensor) -> Tensor:
    """What `down_proj` reads [m,f], of what `projected` gave."""
    has_gate = _known(module).has_gate
    if has_gate and not hasattr(module, "_apply_gate"):
        gate, up = projection.chunk(2, dim=-1)
        return up * cast(Any, module.act_fn)(gate)
    apply = cast(Any, module._apply_gate if has_gate else module.act_fn)
    return apply(projection)


def put_out(module: nn.Module, expert: int, activation: Tensor) -> Tensor:
    """What an expert's `down_proj` makes [m,h] of what `activated` gave, before it is weighed."""
    return _product(module, "down_proj", expert, activation)


def _product(module: nn.Module, name: str, expert: int, tokens: Tensor) -> Tensor:
    weight = module.get_parameter(name)[expert]
    layout = _known(module)
    bias = module.get_parameter(f"{name}_bias")[expert] if layout.has_bias else None
    return torch.nn.functional.linear(tokens, weight.mT if layout.is_transposed else weight, bias)
