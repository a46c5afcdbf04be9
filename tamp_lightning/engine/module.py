"""The LightningModule: one epoch is one pass of all calibration samples over one decoder block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tamp_lightning.callbacks.contract import BlockPass, Walk
from tamp_lightning.methods.method import Method
from tamp_lightning.stream.base import Stream
from tamp_lightning.stream.cache import ActivationCache, CachedBatch, first_block_inputs

EXTRAS = ("sample_ids", "valid")


class TampModule(BlockPass):
    """Walks over the decoder blocks of a stream: dense to measure (if the method needs it), then to prune.

    Only `clock` is a parameter of this module. The model lives in the stream, outside Lightning's module tree, so that
    moving devices, wrapping for several processes and checkpoints never touch it. The clock's SGD with learning rate
    0 steps on the last batch of every pass, which makes `global_step` the number of finished passes.

    In the prune walk a step first advances the cached hidden state through the finished predecessor, then runs the
    current block for the collectors; so every block sees what its pruned predecessors really produce.

    Raises:
        ValueError: the decoder blocks are of several kinds, so that what one is called with does not fit another.
    """

    def __init__(self, stream: Stream, method: Method) -> None:
        super().__init__()
        kinds = sorted(set(getattr(stream.model.get_decoder().config, "layer_types", None) or ()))
        if len(kinds) > 1:
            name = type(stream.model).__name__
            raise ValueError(f"{name} mixes decoder blocks of kinds {', '.join(kinds)}: only one kind is supported")
        self.automatic_optimization = False
        self.strict_loading = False
        self.clock = nn.Parameter(torch.zeros(()))
        self.stream, self.method = stream, method
        self.plan = None
        self.cache = ActivationCache()
        walks: list[Walk] = ["measure", "prune"] if method.allocation_rule.needs_measure else ["prune"]
        self.passes = [(walk, k) for walk in walks for k in range(len(stream.facts.linears))]

    @property
    def walk(self) -> Walk:
        """The walk that the current epoch belongs to."""
        return self.passes[self.current_epoch][0]

    @property
    def index(self) -> int:
        """Number of the current block."""
        return self.passes[self.current_epoch][1]

    @property
    def block(self) -> nn.Module:
        """The current block with real weights; the stream keeps it until it is released."""
        return self.stream.load(self.index)

    @property
    def needs_inputs(self) -> bool:
        """Whether the current epoch starts a walk, i.e. reads samples rather than cached hidden states."""
        return self.current_epoch < len(self.passes) and self.index == 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """An optimiser that moves nothing but Lightning's step counter."""
        return torch.optim.SGD([self.clock], lr=0.0)

    @torch.no_grad()
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Advance one batch and show it to the current block."""
        self.current = cached = self._embed(batch) if self.needs_inputs else self.cache[batch_idx].to(self.device)
        if self.walk == "prune" and self.index > 0:
            previous = self.stream.load(self.index - 1)
            self.current = cached = cached.advanced(previous(cached.hidden, **cached.kwargs))
        output = self.block(cached.hidden, **cached.kwargs)
        self.cache[batch_idx] = cached.advanced(output) if self.walk == "measure" else cached
        if self.trainer.is_last_batch:
            optimizer = self.optimizers()
            assert not isinstance(optimizer, list)
            optimizer.step()

    def _embed(self, batch: dict[str, Tensor]) -> CachedBatch:
        inputs = {k: v for k, v in batch.items() if k not in EXTRAS}
        hidden, kwargs = first_block_inputs(self.stream.model, self.block, inputs)
        modality = self.stream.facts.modality(inputs).to(hidden.device)
        return CachedBatch(batch["sample_ids"], hidden, kwargs, modality, batch["valid"])

    def on_train_epoch_end(self) -> None:
        """Let go of the block nobody needs any more; stop after the last pass."""
        if self.walk == "measure":
            self.stream.release(self.index)
        elif self.index > 0:
            self.stream.release(self.index - 1)
        if self.current_epoch + 1 == len(self.passes):
            self.stream.release(self.index)
            self.cache.clear()
            self.trainer.should_stop = True
