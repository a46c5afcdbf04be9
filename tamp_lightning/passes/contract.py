"""What the callbacks may ask of the LightningModule, which stands one floor above them."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import Literal

import lightning as L
from torch import Tensor, nn

from tamp_lightning.distributed.share import Share
from tamp_lightning.methods.tokens import Stage
from tamp_lightning.stream.base import Stream
from tamp_lightning.stream.cache import ActivationCache, CachedBatch

Walk = Literal["measure", "prune"]
Task = Stage | Literal["advance"]
"""What an epoch is for; "advance" only carries the hidden state past a block that an earlier run is done with."""


class BlockPass(L.LightningModule):
    """A LightningModule that passes all calibration samples over one decoder block per epoch."""

    stream: Stream
    current: CachedBatch
    """The batch that was last given to the current block."""
    output: Tensor
    """What the current block made of that batch [B,n,h]."""
    cache: ActivationCache
    """Every batch of this process in front of the current block, in the prune walk; behind it, in the measure walk."""
    share: Share
    """The batches of this process."""
    idle: bool = False
    """Whether this step has no batch, because other processes have more; there is nothing to look at then."""
    plan: dict[str, int] | None
    """Weights each linear keeps, by full module name; None until the budget is allocated."""

    @property
    @abstractmethod
    def samples_ahead(self) -> int:
        """Number of samples in the batches of the processes before this one."""

    @property
    @abstractmethod
    def walk(self) -> Walk:
        """Which walk over the blocks the current epoch belongs to."""

    @property
    @abstractmethod
    def index(self) -> int:
        """Number of the current block."""

    @property
    @abstractmethod
    def stage(self) -> Task:
        """What the current epoch is for: statistics, drift, choosing a mix, or nothing but the next block's input."""

    @property
    @abstractmethod
    def needs_inputs(self) -> bool:
        """Whether the current epoch reads samples rather than cached hidden states."""

    @property
    @abstractmethod
    def is_dense(self) -> bool:
        """Whether what passes the current block is what passes it in the dense model, so that it can be scored."""

    @property
    @abstractmethod
    def is_blind(self) -> bool:
        """Whether nobody looks at what passes the current block, so that nothing has to pass."""

    @property
    @abstractmethod
    def is_first_stage(self) -> bool:
        """Whether no epoch of this walk was over the current block before."""

    @property
    @abstractmethod
    def is_last_stage(self) -> bool:
        """Whether no further epoch of this walk is over the current block."""

    @property
    @abstractmethod
    def block(self) -> nn.Module:
        """The current block, with real weights."""

    @abstractmethod
    def embed(self, batch: dict[str, Tensor], watch: AbstractContextManager[None] | None = None) -> CachedBatch:
        """Run everything in front of the blocks on a calibration batch, once inside of `watch`."""

    @abstractmethod
    def run(self, index: int, batch: CachedBatch) -> Tensor:
        """What block `index`, with the weights it has now, makes of a batch that stands in front of it [B,n,h]."""
