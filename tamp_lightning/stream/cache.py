"""The hidden state of every calibration sample in front of one decoder block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tamp_lightning.stream.calls import Calls, move


@dataclass(frozen=True)
class CachedBatch:
    """What a decoder block is called with, and what is known of each token."""

    ids: Tensor
    """[B] int64: position of each sample in its data set."""
    hidden: Tensor
    """[B,n,h]: the block's input."""
    modality: Tensor
    """[B,n] int64: 0 text, 1 image, 2 video, 3 audio."""
    valid: Tensor
    """[B,n] bool: False on padding."""
    calls: Calls
    """Everything else the model passes to its blocks (rotary embeddings, masks)."""
    kwargs: dict[str, Any]
    """What of it this block gets."""
    index: int = 0
    """Number of the block."""

    def to(self, device: torch.device | str) -> CachedBatch:
        """The same batch with every tensor on `device`."""
        tensors = {name: getattr(self, name).to(device) for name in ("ids", "hidden", "modality", "valid")}
        moved: dict[int, Tensor] = {}
        return replace(self, **tensors, calls=self.calls.to(device, moved), kwargs=move(self.kwargs, device, moved))

    def advanced(self, hidden: Tensor) -> CachedBatch:
        """The same batch in front of the next block, or behind the last.

        Args:
            hidden: [B,n,h]: what this block returned.
        """
        index = self.index + 1
        if index == len(self.calls.kinds):
            return replace(self, hidden=hidden, kwargs={}, index=index)
        hidden, kwargs = self.calls.enter(index, hidden)
        return replace(self, hidden=hidden, kwargs=kwargs, index=index)


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
