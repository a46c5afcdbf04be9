"""What the callbacks may ask of the LightningModule, which stands one floor above them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import lightning as L
from torch import nn

from tamp_lightning.stream.base import Stream
from tamp_lightning.stream.cache import CachedBatch

Walk = Literal["measure", "prune"]


class BlockPass(L.LightningModule):
    """A LightningModule that passes all calibration samples over one decoder block per epoch."""

    stream: Stream
    current: CachedBatch
    """The batch that was last given to the current block."""
    plan: dict[str, int] | None
    """Weights each linear keeps, by full module name; None until the budget is allocated."""

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
    def block(self) -> nn.Module:
        """The current block, with real weights."""
