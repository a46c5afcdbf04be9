"""The hidden state of every calibration sample in front of one decoder block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class CachedBatch:
    """What a decoder block is called with, and what is known of each token."""

    ids: Tensor
    """[B] int64: position of each sample in its data set."""
    hidden: Tensor
    """[B,n,h]: the block's input."""
    kwargs: dict[str, Any]
    """Everything else the model passes to its blocks (rotary embeddings, masks)."""
    modality: Tensor
    """[B,n] int64: 0 text, 1 image, 2 video, 3 audio."""
    valid: Tensor
    """[B,n] bool: False on padding."""

    def to(self, device: torch.device | str) -> CachedBatch:
        """The same batch with every tensor on `device`."""
        return replace(
            self,
            **{name: getattr(self, name).to(device) for name in ("ids", "hidden", "modality", "valid")},
            kwargs={key: _move(value, device) for key, value in self.kwargs.items()},
        )

    def advanced(self, hidden: Tensor) -> CachedBatch:
        """The same batch in front of the next block."""
        return replace(self, hidden=hidden)


def _move(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(_move(v, device) for v in value)
    return value


class ActivationCache:
    """Cached batches by number, held in memory between the passes over two blocks."""

    def __init__(self) -> None:
        self._batches: dict[int, CachedBatch] = {}

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[CachedBatch]:
        return iter(self._batches.values())

    def __getitem__(self, index: int) -> CachedBatch:
        return self._batches[index]

    def __setitem__(self, index: int, batch: CachedBatch) -> None:
        self._batches[index] = batch.to("cpu")

    def clear(self) -> None:
        """Forget everything."""
        self._batches.clear()


class _Reached(Exception):
    """The first block has been called: nothing behind it needs to run."""


@torch.no_grad()
def first_block_inputs(
    model: PreTrainedModel, block: nn.Module, batch: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Any]]:
    """Run embeddings, towers and projector; return what the first decoder block is called with.

    Args:
        model: the skeleton; its decoder blocks may lie on the meta device.
        block: its first decoder block, which is not run.
        batch: the model's inputs.

    Returns:
        hidden state [B,n,h] and the remaining keyword arguments of the block, caches left out.
    """
    seen: dict[str, Any] = {}

    def stop(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        seen.update(kwargs)
        if args:
            seen["hidden_states"] = args[0]
        raise _Reached

    handle = block.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(**batch, use_cache=False)
    except _Reached:
        pass
    finally:
        handle.remove()
    hidden = seen.pop("hidden_states")
    return hidden, {k: v for k, v in seen.items() if k not in ("past_key_values", "use_cache") and v is not None}
