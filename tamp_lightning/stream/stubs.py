"""The decoder's own loop, run over stubs in the place of its blocks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tamp_lightning.compat.modeling import CACHE_NAMES

# Caches are for generation; a block that is run once per token sequence has none.
_DROPPED = (*CACHE_NAMES, "use_cache")


class _Reached(Exception):
    """The last block of interest has been called: nothing after it needs to run."""


@dataclass(frozen=True)
class BlockCall:
    """One call of a block."""

    index: int
    hidden: Tensor
    """[B,n,h]."""
    kwargs: dict[str, Any]
    returned: Tensor
    """What its stub gave back, before the decoder could change it in place."""
    version: int
    """Counts in-place changes of `returned`."""


@dataclass(frozen=True)
class Replay:
    """The decoder's own loop, run again up to a block: for models that do something between two blocks."""

    decoder: nn.Module
    blocks: nn.ModuleList
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    """What the decoder was called with."""

    @torch.no_grad()
    def enter(self, index: int, hidden: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """What block `index` is called with when the block before it returns `hidden` [B,n,h]."""
        seen = run_stubs(self.decoder, self.blocks, self.arguments, {index - 1: hidden}, index)
        return seen[-1].hidden, seen[-1].kwargs


def run_stubs(
    module: nn.Module,
    blocks: nn.ModuleList,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    returns: Mapping[int, Tensor] | None = None,
    last: int | None = None,
) -> list[BlockCall]:
    """Call `module` with stubs for blocks, up to block `last`; stubs return `returns`, or what they are given."""
    seen: list[BlockCall] = []
    given = returns or {}

    def stub(index: int) -> Callable[..., Tensor]:
        def forward(*args: Any, **kwargs: Any) -> Tensor:
            call = _bind(type(blocks[index]), args, kwargs)
            hidden = next(iter(call.values()))
            rest = {k: v for k, v in list(call.items())[1:] if k not in _DROPPED}
            returned = given.get(index, hidden)
            # A copy of what is not ours, for what the decoder may do to it in place.
            returned = returned.clone() if index in {0, *given} else returned
            seen.append(BlockCall(index, hidden, rest, returned, returned._version))
            if index == (len(blocks) - 1 if last is None else last):
                raise _Reached
            return returned

        return forward

    with replaced(blocks, [stub(k) for k in range(len(blocks))]), suppress(_Reached):
        module(*arguments[0], **arguments[1])
    return seen


@contextmanager
def replaced(modules: Iterable[nn.Module], stubs: Iterable[Callable[..., Tensor]]) -> Iterator[None]:
    """Inside, every module computes what its stub returns; its hooks are called as ever."""
    pairs = list(zip(modules, stubs, strict=True))
    own = [vars(module).get("forward") for module, _ in pairs]
    for module, stub in pairs:
        module.forward = stub
    try:
        yield
    finally:
        for (module, _), forward in zip(pairs, own, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward


def _bind(kind: type[nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a block by name, the hidden state first."""
    signature = inspect.signature(kind.forward)
    bound = dict(signature.bind(None, *args, **kwargs).arguments)
    names = list(signature.parameters)
    del bound[names[0]]
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            bound |= bound.pop(name, {})
    return {names[1]: bound.pop(names[1]), **bound}
