"""Samples that are scored layer by layer: they pass each block before and after it is pruned."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from tamp_lightning.checkpoint.head import find_norm
from tamp_lightning.passes.contract import BlockPass
from tamp_lightning.stream.cache import ActivationCache, CachedBatch
from tamp_lightning.stream.calls import move, record_calls

Extras = dict[str, Tensor]


class LayerwiseCallback(L.Callback):
    """Walks two hidden states of every batch: one through the dense blocks, one through the pruned blocks.

    They are no calibration: they pass between the epochs, when nobody collects statistics. Every block is loaded
    once for calibration and for them, so that no whole model is ever in memory. Stands after the PruningCallback.
    """

    def __init__(self) -> None:
        self._dense, self._pruned = ActivationCache(), ActivationCache()
        self._extras: list[Extras] = []

    @abstractmethod
    def start(self, trainer: L.Trainer) -> Iterable[tuple[dict[str, Tensor], Extras]]:
        """Model inputs of each batch of this process, and what else `finish` is to be given of it."""

    @abstractmethod
    def finish(self, pl_module: BlockPass, extras: Extras, dense: Tensor, pruned: Tensor) -> None:
        """Take the hidden states [B,n,h] of a batch after the last block of the dense and of the pruned model."""

    @torch.no_grad()
    def on_fit_start(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Embed all batches.

        Raises:
            InputError: the model has no norm or head after its blocks.
        """
        stream = pl_module.stream
        find_norm(stream.model, stream.facts.blocks)
        for number, (inputs, extras) in enumerate(self.start(trainer)):
            batch: dict[str, Tensor] = move(inputs, pl_module.device, {})
            hidden, calls = record_calls(stream.model, stream.facts.blocks, batch)
            tokens = torch.zeros(hidden.shape[:2], dtype=torch.int64, device=hidden.device)
            ids = torch.arange(len(hidden))
            start = CachedBatch(ids, hidden, tokens, tokens == 0, tokens == 0, calls, calls.enter(0, hidden)[1]).to(
                "cpu"
            )
            self._dense[number] = self._pruned[number] = start
            self._extras.append(extras)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Pass the block while it is dense."""
        if pl_module.walk == "prune" and pl_module.is_first_stage:
            self._advance(pl_module, self._dense)

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Pass the block once it is pruned; after the last one, finish."""
        if pl_module.walk != "prune" or not pl_module.is_last_stage:
            return
        self._advance(pl_module, self._pruned)
        if pl_module.index < len(pl_module.stream.facts.linears) - 1:
            return
        for number, extras in enumerate(self._extras):
            dense, pruned = (cache[number].hidden.to(pl_module.device) for cache in (self._dense, self._pruned))
            self.finish(pl_module, extras, dense, pruned)

    @torch.no_grad()
    def _advance(self, pl_module: BlockPass, cache: ActivationCache) -> None:
        for number in range(len(cache)):
            batch = cache[number].to(pl_module.device)
            with pl_module.seeing(batch):
                cache[number] = batch.advanced(pl_module.run(pl_module.index, batch))

    def teardown(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Forget everything."""
        self._dense.clear()
        self._pruned.clear()
        self._extras.clear()
