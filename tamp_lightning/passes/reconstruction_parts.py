"""Where a block is cut between attention and MLP, and what of it stands on which side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.stream.cache import CachedBatch


@dataclass(frozen=True)
class Part:
    """What of a block is trained together."""

    linears: tuple[Linear, ...]
    scales: tuple[str, ...]
    """Names of further parameters, relative to the block."""
    cut: nn.Module | None
    """Compared is what this child of the block reads; None: what the block returns."""


def parts_of(
    block: nn.Module, linears: Sequence[Linear], called: Sequence[str], scales: Sequence[str] = ()
) -> list[Part]:
    """Attention and MLP with what stands between them, where a block has one after the other; else the whole block.

    The child that is called right before the next one with linears is the norm that the MLP reads: what it reads is
    attention's output with the residual added (before that, where norms stand after attention, as in OLMo 2). An MLP
    may be several children (OPT's fc1 and fc2); between those a block is never cut.

    Args:
        block: the decoder block.
        linears: what is pruned in it.
        called: names of the block's children in the order in which they run.
        scales: names of further parameters to train, relative to the block; that norm's go with the MLP.
    """
    homes = {linear: _home(linear.name) for linear in linears}
    places = sorted(map(called.index, set(homes.values()) & set(called)))
    mlp = next((after for before, after in pairwise(places) if after - before > 1), 0)
    first = tuple(linear for linear, home in homes.items() if home in called[:mlp])
    rest = tuple(linear for linear, home in homes.items() if home in called[mlp:])
    if not first or len(first) + len(rest) != len(linears) or any(linear.name in called for linear in first):
        return [Part(tuple(linears), tuple(scales), None)]
    before = tuple(name for name in scales if _home(name) in called[: mlp - 1])
    after = tuple(name for name in scales if name not in before)
    return [Part(first, before, block.get_submodule(called[mlp - 1])), Part(rest, after, None)]


def _home(name: str) -> str:
    """The block's child that something stands in."""
    return name.partition(".")[0]


def masks_of(block: nn.Module, masks: Mapping[Linear, Tensor]) -> dict[str, Tensor]:
    """Bool masks by name of the parameter that holds the linears, stacked as that is; False where nothing is pruned."""
    found: dict[str, Tensor] = {}
    for linear, mask in masks.items():
        if linear.piece is None:
            found[linear.parameter] = mask
        else:
            whole = found.setdefault(
                linear.parameter, torch.zeros_like(block.get_parameter(linear.parameter), dtype=torch.bool)
            )
            linear.part(whole).copy_(mask)
    return found


def reach(block: nn.Module, batch: CachedBatch, cut: nn.Module | None) -> Tensor:
    """What a block makes of a batch [B,n,h], or what its child `cut` reads; nothing after that is computed."""
    if cut is None:
        return block(batch.hidden, **batch.kwargs)

    def stop(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        raise _ReachedError(given[0])

    handle = cut.register_forward_pre_hook(stop)
    try:
        block(batch.hidden, **batch.kwargs)
    except _ReachedError as reached:
        return reached.hidden.view_as(batch.hidden)  # OPT's norms read tokens in one row
    finally:
        handle.remove()
    raise RuntimeError("the block did not call the child at which it is cut")


class _ReachedError(Exception):
    """Ends a block's forward pass where it is cut."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


@torch.no_grad()
def called_children(block: nn.Module, batch: CachedBatch) -> list[str]:
    """Names of the block's children in the order in which they first run on a batch."""
    found: dict[str, None] = {}
    children = {child: name for name, child in block.named_children()}
    handles = [c.register_forward_pre_hook(lambda m, _: found.setdefault(children[m])) for c in children]
    try:
        block(batch.hidden, **batch.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return list(found)


@contextmanager
def holding(block: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Other values of parameters, by name, for as long as the context lasts; nothing is copied."""
    parameters = {name: block.get_parameter(name) for name in values}
    own = {name: parameter.data for name, parameter in parameters.items()}
    _hold(parameters, values)
    try:
        yield
    finally:
        _hold(parameters, own)


def _hold(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.data = values[name]


@contextmanager
def training(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Parameters with gradients, which are gone when the context ends."""
    own = list(parameters)
    for parameter in own:
        parameter.requires_grad_(True).grad = None
    try:
        yield
    finally:
        for parameter in own:
            parameter.requires_grad_(False).grad = None
