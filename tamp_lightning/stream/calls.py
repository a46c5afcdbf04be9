"""What the decoder calls each of its blocks with, learnt from its own loop without running a block.

Models compute masks and rotary embeddings per kind of block, hand features from towers to single blocks, or change the
hidden state between two blocks. None of this is rebuilt here: the decoder runs its own code with a stub in the place of
every block, and what reaches the stubs is noted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tamp_lightning.errors import InputError
from tamp_lightning.stream.stubs import BlockCall, Replay, run_stubs

_MASK = "attention_mask"


class Store(dict[str, Any]):
    """What blocks hand to later blocks of a batch beside the hidden state, such as the keys and values they share.

    Empty before the first block. It belongs to one batch: all blocks get the same object, and a copy of the batch gets
    a copy of it.
    """


@dataclass(frozen=True)
class Calls:
    """What the blocks are called with for one batch, besides the hidden state; blocks of one kind share it."""

    kwargs: tuple[dict[str, Any], ...]
    """Per kind of block."""
    kinds: tuple[int, ...]
    """Kind of every block."""
    replay: Replay | None = None
    """Set where something happens between the blocks, so that an output is not the next block's input."""

    @property
    def is_fixed(self) -> bool:
        """Whether blocks are called with the same things whatever the blocks before them returned."""
        return self.replay is None and not any(isinstance(v, Store) for one in self.kwargs for v in one.values())

    def enter(self, index: int, hidden: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """What block `index` is called with, given what the block before it returned."""
        if self.replay is not None and index > 0:
            return self.replay.enter(index, hidden)
        return hidden, self.kwargs[self.kinds[index]]

    def to(self, device: torch.device | str, moved: dict[int, Any] | None = None) -> Calls:
        """The same calls with every tensor on `device`; what was shared stays shared, also by way of `moved`."""
        moved = {} if moved is None else moved
        kwargs = tuple(move(k, device, moved) for k in self.kwargs)
        again = self.replay and replace(self.replay, arguments=move(self.replay.arguments, device, moved))
        return replace(self, kwargs=kwargs, replay=again)

    def drop_causal_mask(self, blocks: Sequence[nn.Module], valid: Tensor) -> Calls:
        """The same calls without masks that say no more than causal attention does.

        With padding on the right no token that counts sees a token that does not, so its hidden state is the same;
        without a mask attention runs its fastest kernel and nothing of size n x n is stored. Masks that let a token see
        what is after it (images in Gemma 3) or hide what is before it (sliding windows) stay.

        Args:
            blocks: the decoder's blocks.
            valid: [B,n] bool, False on padding.
        """
        first = {kind: blocks[self.kinds.index(kind)] for kind in set(self.kinds)}
        kwargs = [_without_causal_mask(k, valid, first[kind]) for kind, k in enumerate(self.kwargs)]
        return replace(self, kwargs=tuple(kwargs))


@torch.no_grad()
def record_calls(model: PreTrainedModel, path: str, batch: Mapping[str, Tensor]) -> tuple[Tensor, Calls]:
    """Run embeddings, towers and projector, then the decoder's loop over stubs.

    Args:
        model: the skeleton; its decoder blocks are not run and may lie on the meta device.
        path: dotted path of its decoder blocks.
        batch: the model's inputs.

    Returns:
        hidden state [B,n,h] before the first block, and what every block is called with.

    Raises:
        InputError: the decoder does not call every block once and in order with one hidden state, or its blocks share
            a state that only running them would fill.
    """
    blocks, decoder = model.get_submodule(path), model.get_submodule(path.rpartition(".")[0])
    assert isinstance(blocks, nn.ModuleList)
    name, given = type(model).__name__, []
    handle = decoder.register_forward_pre_hook(lambda _, *call: given.append(call), with_kwargs=True)
    try:
        seen = run_stubs(model, blocks, ((), {**batch, "use_cache": False}))
    finally:
        handle.remove()
    refuse_calls(name, seen, len(blocks))
    if "input_ids" in batch and seen[0].hidden.shape[:2] != batch["input_ids"].shape:
        shapes = f"{tuple(batch['input_ids'].shape)} but hidden states of {tuple(seen[0].hidden.shape)}"
        raise InputError(f"{name} was given tokens of shape {shapes}: expand placeholders in the processor")
    replay = Replay(decoder, blocks, given[-1])
    # Other outputs than the embeddings: what depends on them shows.
    other = run_stubs(decoder, blocks, replay.arguments, {0: torch.zeros_like(seen[0].hidden)})
    direct = _untouched(seen) and _untouched(other) and _same([s.kwargs for s in seen], [s.kwargs for s in other])
    if not direct:
        _refuse_far(name, replay, seen[0].hidden)
    kwargs, kinds = _by_kind(own_stores([s.kwargs for s in seen]))
    if not direct and any(isinstance(value, Store) for one in kwargs for value in one.values()):
        raise InputError(
            f"the decoder blocks of {name} share a state, and something happens between them: they cannot be run one "
            "by one"
        )
    return seen[0].hidden, Calls(kwargs, kinds, None if direct else replay)


def own_stores(calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Arguments of the blocks with a `Store` of ours in place of every empty mapping, the same for the same."""
    stores: dict[int, Store] = {}

    def own(value: Any) -> Any:
        return stores.setdefault(id(value), Store()) if is_store(value) else value

    return [{key: own(value) for key, value in kwargs.items()} for kwargs in calls]


def is_store(value: Any) -> bool:
    """Whether an argument of a block is a mapping that waits to be filled."""
    return isinstance(value, MutableMapping) and len(value) == 0


def refuse_calls(name: str, seen: Sequence[BlockCall], count: int) -> None:
    """Refuse a decoder that does not call every block once and in order, with one hidden state [B,n,h].

    Args:
        name: of the model, for messages.
        seen: the calls, in order.
        count: number of blocks.

    Raises:
        InputError: it does not, or hands its blocks a state that cannot be kept apart by batch.
    """
    order = [s.index for s in seen]
    if order != list(range(count)):
        odd = next((k for k in range(count) if order.count(k) != 1), None)
        what = "in another order than they stand" if odd is None else f"{order.count(odd)} times block {odd}"
        raise InputError(
            f"{name} calls {what} in a calibration batch, where every decoder block is expected once and in order: "
            "calibrate with samples that pass through all of them, if there are such"
        )
    hidden = seen[0].hidden
    for call in seen:
        if call.hidden.shape != hidden.shape or hidden.ndim != 3:
            shapes = f"{tuple(hidden.shape)} and then {tuple(call.hidden.shape)}"
            raise InputError(f"{name} gives its decoder blocks hidden states of shape {shapes}: expected one [B,n,h]")
        for key, value in call.kwargs.items():
            if not is_store(value) and not _plain(value):
                raise InputError(f"the decoder blocks of {name} share a state ('{key}'): they cannot be run one by one")


def _refuse_far(name: str, replay: Replay, hidden: Tensor) -> None:
    """Refuse a decoder that gives a block what blocks before its predecessor returned: a replay does not know that."""

    def run(changed: Callable[[int], bool]) -> list[BlockCall]:
        returns = {k: torch.zeros_like(hidden) if changed(k) else hidden for k in range(len(replay.blocks))}
        return run_stubs(replay.decoder, replay.blocks, replay.arguments, returns)

    same = run(lambda _: False)
    for parity in (0, 1):
        other = run(lambda k, parity=parity: k % 2 == parity)  # type: ignore[misc]
        for a, b in zip(same[1:], other[1:], strict=True):
            if (a.index - 1) % 2 != parity and not _same([a.hidden, a.kwargs], [b.hidden, b.kwargs]):
                raise InputError(
                    f"{name} gives block {a.index} what blocks before its predecessor returned: "
                    "such connections across blocks are not supported"
                )


def _plain(value: Any) -> bool:
    """Whether a value is all there is to know, rather than a store that blocks fill for each other."""
    if isinstance(value, Mapping):
        return type(value) is dict and len(value) > 0 and all(map(_plain, value.values()))
    if isinstance(value, list | tuple):
        return (isinstance(value, tuple) or len(value) > 0) and all(map(_plain, value))
    return value is None or isinstance(value, Tensor | bool | int | float | str | torch.dtype | torch.device)


def _untouched(seen: Sequence[BlockCall]) -> bool:
    """Whether the decoder hands each block just what the one before it returned."""
    unchanged = all(call.returned._version == call.version for call in seen)
    return unchanged and all(_is_same(a.returned, b.hidden) for a, b in pairwise(seen))


def _is_same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are one, or views of all of it."""
    if a is b:
        return True
    return (a.shape, a.stride(), a.dtype, a.device) == (b.shape, b.stride(), b.dtype, b.device) and (
        a.data_ptr() == b.data_ptr()
    )


def _by_kind(kwargs: Sequence[dict[str, Any]]) -> tuple[tuple[dict[str, Any], ...], tuple[int, ...]]:
    found: list[dict[str, Any]] = []
    kinds = []
    for one in kwargs:
        kind = next((k for k, other in enumerate(found) if _same(one, other)), len(found))
        found += [one] if kind == len(found) else []
        kinds.append(kind)
    return tuple(found), tuple(kinds)


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and not isinstance(a, Tensor) and bool(a == b)


def move(value: Any, device: torch.device | str, moved: dict[int, Any]) -> Any:
    """`value` with every tensor in it on `device`; `moved` holds what has moved already, by id."""
    if isinstance(value, Tensor):
        return moved.setdefault(id(value), value.to(device))
    if isinstance(value, Store):
        if id(value) not in moved:
            moved[id(value)] = Store({k: move(v, device, moved) for k, v in value.items()})
        return moved[id(value)]
    if isinstance(value, Mapping):
        return {k: move(v, device, moved) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(move(v, device, moved) for v in value)
    return value


def _without_causal_mask(kwargs: dict[str, Any], valid: Tensor, block: nn.Module) -> dict[str, Any]:
    mask = kwargs.get(_MASK)
    # Only a boolean mask is sdpa's, which is causal by itself where the module says so.
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.ndim != 4:
        return kwargs
    if not all(getattr(module, "is_causal", True) for module in block.modules()):
        return kwargs
    causal = torch.ones(mask.shape[-2:], dtype=torch.bool, device=mask.device).tril()
    rows = valid.to(mask.device)[:, None, :, None]
    if mask.shape[-2:] != (valid.shape[1],) * 2 or bool(((mask != causal) & rows).any()):
        return kwargs
    return {**kwargs, _MASK: None}
