"""Reads a decoder block while the one before it is worked on: disk, bus and device then wait for each other less."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class _Waiting:
    """A block that is on its way."""

    index: int
    version: object
    tensors: Future[tuple[Tensors, Any]]


class Ahead:
    """One block ahead, in a thread of its own; to a GPU by way of pinned memory and a stream of its own.

    Args:
        read: gives a block's tensors on the CPU, in the dtypes that are computed in, from its number and version.
        device: where they are to be.
    """

    def __init__(self, read: Callable[[int, Any], Tensors], device: torch.device) -> None:
        self._read, self._device = read, device
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._waiting: _Waiting | None = None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def start(self, index: int, version: object) -> None:
        """Begin to read a block, unless it is on its way already; what was read in vain is forgotten."""
        if self._waiting is None or (self._waiting.index, self._waiting.version) != (index, version):
            self._waiting = _Waiting(index, version, self._pool.submit(self._fetch, index, version))

    def take(self, index: int, version: object) -> Tensors | None:
        """The block on its device, if that version of it was begun; None otherwise.

        Raises:
            InputError: it could not be read.
        """
        waiting = self._waiting
        if waiting is None or (waiting.index, waiting.version) != (index, version):
            return None
        self._waiting = None
        tensors, ready = waiting.tensors.result()
        if ready is not None:
            now = torch.cuda.current_stream(self._device)
            now.wait_event(ready)
            for tensor in tensors.values():  # made on another stream: not to be given away while this one computes
                tensor.record_stream(now)
        return tensors

    def close(self) -> None:
        """Forget what is on its way."""
        self._waiting = None
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, index: int, version: object) -> tuple[Tensors, Any]:
        tensors = self._read(index, version)
        if self._stream is None:
            return tensors, None
        with torch.cuda.stream(self._stream):
            moved = {name: value.pin_memory().to(self._device, non_blocking=True) for name, value in tensors.items()}
            return moved, self._stream.record_event()
