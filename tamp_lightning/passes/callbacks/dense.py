"""The dense model's activations beside those of the model that is being pruned."""

from __future__ import annotations

from collections.abc import Mapping

import lightning as L
import torch

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.passes.contract import BlockPass, Pass, PassCallback, Tokens, TokenSource
from tamp_lightning.passes.routing import Routed
from tamp_lightning.stream.cache import ActivationCache, CachedBatch, CacheSpace


class DenseTwin(PassCallback):
    """Walks a second hidden state through the blocks before they are pruned, so that it stays the dense model's.

    Args:
        source: what the linears of the current block see.
        keeps_inputs: keep what the dense block reads until the block is pruned.
        space: where hidden states wait.

    Attributes:
        inputs: every batch before the current dense block, once it has passed it, if they are kept.
    """

    def __init__(self, source: TokenSource, keeps_inputs: bool = False, space: CacheSpace | None = None) -> None:
        self.source, self.keeps_inputs = source, keeps_inputs
        self.inputs = ActivationCache(space)
        self._cache = ActivationCache(space)
        self._begun = False

    def begin(self, batch_idx: int, batch: CachedBatch) -> None:
        """Start from what the dense towers give, where the prune walk starts from pruned ones."""
        self._begun = True
        self._cache[batch_idx] = batch

    def wanted(self, now: Pass) -> bool:
        """The first pass that prunes in a run that is continued."""
        return now.starts_pruning and now.replays

    def pass_starts(self, pl_module: BlockPass) -> None:
        """Take over the dense hidden states of a run that is continued: they stand before its next block."""
        self._cache, pl_module.cache = pl_module.cache, self._cache

    @torch.no_grad()
    def tokens(self, pl_module: BlockPass, batch_idx: int) -> Mapping[Linear, Tokens]:
        """What the current block's linears see in the dense model; to be called once per block and batch.

        Args:
            pl_module: its `current` is the same batch after the pruned blocks.
            batch_idx: number of the batch.

        Returns:
            Tokens by linear, in the order and shapes of the source's own.
        """
        device = pl_module.current.hidden.device
        first = pl_module.index == 0 and not self._begun
        batch = pl_module.current if first else self._cache[batch_idx].to(device)
        output = pl_module.run(pl_module.index, batch)
        self._cache[batch_idx] = batch.advanced(output)
        if self.keeps_inputs:
            self.inputs[batch_idx] = batch
        return self.source.latest()

    def routed(self) -> Mapping[Linear, Routed]:
        """What the block's layers of experts were given in the dense model, of the batch that `tokens` ran last."""
        return self.source.routed()

    def on_fit_end(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Forget everything."""
        self._cache.clear()
        self.inputs.clear()
