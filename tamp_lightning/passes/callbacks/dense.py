"""The dense model's activations beside those of the model that is being pruned."""

from __future__ import annotations

import lightning as L
import torch
from torch import Tensor

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.passes.callbacks.tokens import TokenCollector, Tokens
from tamp_lightning.passes.contract import BlockPass
from tamp_lightning.stream.cache import ActivationCache, CachedBatch, CacheSpace


class DenseTwin(L.Callback):
    """Walks a second hidden state through the blocks before they are pruned, so that it stays the dense model's.

    Args:
        collector: hooks the current block.
        keep_outputs: keep what the dense block returns until the block is pruned.
        space: where hidden states wait.
    """

    def __init__(self, collector: TokenCollector, keep_outputs: bool = False, space: CacheSpace | None = None) -> None:
        self.collector, self.keep_outputs = collector, keep_outputs
        self.outputs: dict[int, Tensor] = {}
        self._cache = ActivationCache(space)
        self._begun = False

    def begin(self, batch_idx: int, batch: CachedBatch) -> None:
        """Start from what the dense towers give, where the prune walk starts from pruned ones."""
        self._begun = True
        self._cache[batch_idx] = batch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Take over the dense hidden states of a run that is continued: they stand in front of its next block."""
        if pl_module.walk == "prune" and pl_module.stage == "advance" and pl_module.index == 0:
            self._cache, pl_module.cache = pl_module.cache, self._cache

    @torch.no_grad()
    def tokens(self, pl_module: BlockPass, batch_idx: int) -> dict[Linear, Tokens]:
        """What the current block's linears see in the dense model; to be called once per block and batch.

        Args:
            pl_module: its `current` is the same batch behind the pruned blocks.
            batch_idx: number of the batch.

        Returns:
            Tokens by linear, in the order and shapes of the collector's own.
        """
        device = pl_module.current.hidden.device
        first = pl_module.index == 0 and not self._begun
        batch = pl_module.current if first else self._cache[batch_idx].to(device)
        output = pl_module.run(pl_module.index, batch)
        self._cache[batch_idx] = batch.advanced(output)
        if self.keep_outputs:
            self.outputs[batch_idx] = output.cpu()
        return dict(self.collector.tokens)

    def on_fit_end(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Forget everything."""
        self._cache.clear()
        self.outputs.clear()
