"""The hidden state of every calibration sample before one decoder block."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tamp_lightning.stream.calls import Calls, move


@dataclass(frozen=True)
class CachedBatch:
    """What a decoder block is called with, and what is known of each token."""

    ids: Tensor
    """[B] int64, on the CPU wherever the rest is: position of each sample in its data set."""
    hidden: Tensor
    """[B,n,h]: the block's input."""
    modality: Tensor
    """[B,n] int64: 0 text, 1 image, 2 video, 3 audio."""
    valid: Tensor
    """[B,n] bool: False on padding, as in the attention mask."""
    counted: Tensor
    """[B,n] bool: tokens that enter statistics: the valid ones, without those that a recipe ignores (silence)."""
    calls: Calls
    """Everything else the model passes to its blocks (rotary embeddings, masks)."""
    kwargs: dict[str, Any]
    """What of it this block gets."""
    index: int = 0
    """Number of the block."""

    def to(self, device: torch.device | str) -> CachedBatch:
        """The same batch with every tensor but `ids` on `device`."""
        # to a GPU nothing waits: what is computed there comes after the copy, in the same stream
        free = torch.device(device).type == "cuda"
        names = ("hidden", "modality", "valid", "counted")
        tensors = {name: getattr(self, name).to(device, non_blocking=free) for name in names}
        moved: dict[int, Any] = {}
        return replace(self, **tensors, calls=self.calls.to(device, moved), kwargs=move(self.kwargs, device, moved))

    def advanced(self, hidden: Tensor) -> CachedBatch:
        """The same batch before the next block, or after the last.

        Args:
            hidden: [B,n,h]: what this block returned.
        """
        index = self.index + 1
        if index == len(self.calls.kinds):
            return replace(self, hidden=hidden, kwargs={}, index=index)
        hidden, kwargs = self.calls.enter(index, hidden)
        return replace(self, hidden=hidden, kwargs=kwargs, index=index)

    def at(self, index: int, hidden: Tensor) -> CachedBatch:
        """The same batch before another block; only where calls are fixed (`Calls.is_fixed`)."""
        kinds = self.calls.kinds
        kwargs = self.calls.kwargs[kinds[index]] if index < len(kinds) else {}
        return replace(self, hidden=hidden, kwargs=kwargs, index=index)


class CacheSpace:
    """Where hidden states wait between two blocks: in RAM up to a limit, in mapped files beyond it.

    Caches that share a space share the limit. In RAM they are pinned if they come from a GPU. Wherever they wait, they
    come back with the same bits.

    Args:
        folder: for the mapped files, which have no name there as soon as they are mapped: nothing is left of them when
            the process ends, however it ends.
        limit: bytes of RAM; None = no limit.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        if limit is not None and folder is None:
            raise ValueError("a limited activation cache needs a folder for what goes beyond the limit")
        self.folder, self.limit = folder, limit
        self.in_ram = self.in_files = 0
        """Bytes given out."""

    def slot(self, hidden: Tensor) -> Slot:
        """Room for a tensor of the same shape and dtype.

        Raises:
            OSError: the disk has no room.
        """
        if self.limit is None or self.in_ram + hidden.nbytes <= self.limit:
            self.in_ram += hidden.nbytes
            pinned = hidden.is_cuda and torch.empty(hidden.shape, dtype=hidden.dtype, pin_memory=True)
            return Slot(pinned if isinstance(pinned, Tensor) else None, mapped=False)
        self.in_files += hidden.nbytes
        return Slot(self._mapped(hidden), mapped=True)

    def _mapped(self, like: Tensor) -> Tensor:
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix="cache-") as file:
            try:
                _allocate(file.fileno(), like.nbytes)
            except OSError as error:
                where = f"{like.nbytes / 1e9:.2f} GB for the activation cache in {self.folder}"
                raise OSError(f"cannot map {where}: {error.strerror}; make room or raise cache.limit_gb") from None
            return torch.from_file(file.name, shared=True, size=like.numel(), dtype=like.dtype).view(like.shape)


@dataclass(frozen=True)
class Slot:
    """Room for one hidden state; without memory of its own it just keeps what it is given."""

    memory: Tensor | None
    mapped: bool

    def put(self, hidden: Tensor) -> Tensor:
        """The same values on the CPU, in this slot.

        Pinned memory is read by the GPU alone, in the stream that writes to it, so that nobody waits for the copy.
        """
        return hidden.cpu() if self.memory is None else self.memory.copy_(hidden, non_blocking=not self.mapped)

    def fits(self, hidden: Tensor) -> bool:
        """Whether a tensor has the slot's shape and dtype."""
        memory = self.memory
        return memory is None or (memory.shape == hidden.shape and memory.dtype == hidden.dtype)


def _allocate(handle: int, size: int) -> None:
    """Reserve the bytes now: writing to a mapped page for which there is no room would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.ftruncate(handle, size)


class ActivationCache:
    """Cached batches by number, held between the passes over two blocks.

    Args:
        space: where hidden states wait; what else belongs to a batch stays in RAM.
    """

    def __init__(self, space: CacheSpace | None = None) -> None:
        self.space = space or CacheSpace()
        self._batches: dict[int, CachedBatch] = {}
        self._slots: dict[int, Slot] = {}

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[CachedBatch]:
        return (self[index] for index in self._batches)

    def __getitem__(self, index: int) -> CachedBatch:
        batch = self._batches[index]
        # A copy of what is mapped: the next hidden state is written to the same place while this one is still in use.
        return replace(batch, hidden=batch.hidden.clone()) if self._slots[index].mapped else batch

    def __setitem__(self, index: int, batch: CachedBatch) -> None:
        slot = self._slots.get(index)
        if slot is None or not slot.fits(batch.hidden):
            slot = self._slots[index] = self.space.slot(batch.hidden)
        known, hidden = self._batches.get(index), slot.put(batch.hidden)
        # further on in the same walk nothing else has changed since it came to the CPU
        if known is not None and 0 < batch.index >= known.index and known.calls.is_fixed:
            self._batches[index] = known.at(batch.index, hidden)
        else:
            self._batches[index] = replace(batch, hidden=hidden).to("cpu")

    def clear(self) -> None:
        """Forget everything."""
        self._batches.clear()
        self._slots.clear()
