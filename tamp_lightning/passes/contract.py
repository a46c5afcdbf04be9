"""What a pass is, and what callbacks may ask of the LightningModule, which stands one floor above them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import lightning as L
from torch import Tensor, nn

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.distributed.partition import BatchPartition
from tamp_lightning.methods.tokens import Stage
from tamp_lightning.passes.routing import Routed
from tamp_lightning.stream.base import Stream
from tamp_lightning.stream.cache import ActivationCache, CachedBatch

Walk = Literal["measure", "prune"]
Task = Stage | Literal["replay"]
"""What an epoch is for; "replay" only carries the hidden state past a block that an earlier run is done with."""


@dataclass(frozen=True)
class Pass:
    """One epoch: all calibration samples pass one block, for one purpose."""

    kind: Walk
    block: int
    """Number of the block."""
    stage: Task
    is_dense: bool
    """Whether the samples pass the dense model: while measuring, and always in mode one_shot."""
    is_first: bool = True
    """Whether no pass of this kind was over the block before."""
    is_last: bool = True
    """Whether no further pass of this kind is over the block."""

    @property
    def replays(self) -> bool:
        """Whether nothing is learnt: an earlier run has done that."""
        return self.stage == "replay"

    @property
    def measures(self) -> bool:
        """Whether an allocation may score the block, which is dense."""
        return self.is_dense and not self.replays

    @property
    def collects(self) -> bool:
        """Whether statistics are collected for the solver."""
        return self.kind == "prune" and self.stage == "collect"

    @property
    def prunes(self) -> bool:
        """Whether the block may be pruned when the pass ends: the solver has seen all it asked for."""
        return self.kind == "prune" and not self.replays and self.is_last

    @property
    def starts_pruning(self) -> bool:
        """Whether this is the first pass of those that prune, replays among them."""
        return self.kind == "prune" and self.block == 0 and self.is_first


@dataclass(frozen=True)
class Tokens:
    """Input [B,n,c] and output [B,n,o] of one linear for one batch."""

    inputs: Tensor
    outputs: Tensor


class TokenSource(Protocol):
    """Hands over what the linears of the current block saw when it last ran."""

    def latest(self) -> Mapping[Linear, Tokens]:
        """Tokens by linear, in the order in which they ran; later runs of the block do not change what was given."""

    def routed(self) -> Mapping[Linear, Routed]:
        """What the block's layers of experts were given, by a linear that stands for the whole layer; likewise."""


class BlockPass(L.LightningModule):
    """A LightningModule that passes all calibration samples over one decoder block per epoch."""

    stream: Stream
    current: CachedBatch
    """The batch that was last given to the current block."""
    output: Tensor
    """What the current block made of that batch [B,n,h]."""
    cache: ActivationCache
    """Every batch of this process before the current block, in the prune walk; after it, in the measure walk."""
    partition: BatchPartition
    """The batches of this process."""
    no_batch: bool = False
    """Whether this step has no batch, because other processes have more; there is nothing to look at then."""
    plan: dict[str, int] | None
    """Weights each linear keeps, by full module name; None until the budget is allocated."""
    plans: dict[float, dict[str, int]]
    """The same for every width that is tried on a block; empty if none is."""

    def planned(self, linear: str, width: float | None) -> int:
        """Weights that a linear keeps, at a width if several are tried."""
        plan = self.plan if width is None else self.plans[width]
        if plan is None:
            raise RuntimeError("no budget was allocated: AllocationCallback has to stand before PruningCallback")
        return plan[linear]

    @abstractmethod
    def go_on(self, measured: int, pruned: int) -> None:
        """Before the first pass: leave out what an earlier run has done, as the first process knows it.

        Args:
            measured: number of blocks that it has measured.
            pruned: number of blocks that it has pruned.
        """

    @property
    @abstractmethod
    def samples_ahead(self) -> int:
        """Number of samples in the batches of the processes before this one."""

    @property
    @abstractmethod
    def now(self) -> Pass:
        """The current pass."""

    @property
    def walk(self) -> Walk:
        """Whether the current pass measures or prunes."""
        return self.now.kind

    @property
    def index(self) -> int:
        """Number of the current block."""
        return self.now.block

    @property
    def stage(self) -> Task:
        """What the current pass is for: statistics, drift, choosing a mix, or nothing but the next block's input."""
        return self.now.stage

    @property
    @abstractmethod
    def needs_inputs(self) -> bool:
        """Whether the current epoch reads samples rather than cached hidden states."""

    @property
    @abstractmethod
    def skip_forward(self) -> bool:
        """Whether no callback looks at what passes the current block, so that nothing has to pass."""

    @property
    def is_dense(self) -> bool:
        """Whether what passes the current block is what passes it in the dense model, so that it can be scored."""
        return self.now.is_dense

    @property
    def is_first_stage(self) -> bool:
        """Whether no epoch of this walk was over the current block before."""
        return self.now.is_first

    @property
    def is_last_stage(self) -> bool:
        """Whether no further epoch of this walk is over the current block."""
        return self.now.is_last

    @property
    @abstractmethod
    def block(self) -> nn.Module:
        """The current block, with real weights."""

    @abstractmethod
    def embed(self, batch: dict[str, Tensor], watch: AbstractContextManager[None] | None = None) -> CachedBatch:
        """Run everything before the blocks on a calibration batch, once inside of `watch`."""

    @abstractmethod
    def run(self, index: int, batch: CachedBatch) -> Tensor:
        """What block `index`, with the weights it has now, makes of a batch that stands before it [B,n,h]."""

    @contextmanager
    def seeing(self, batch: CachedBatch) -> Iterator[None]:
        """Another batch as the current one, for whoever runs the block out of turn: hooks look at the current batch."""
        before = getattr(self, "current", None)
        self.current = batch
        try:
            yield
        finally:
            if before is not None:
                self.current = before


class PassCallback(L.Callback):
    """A callback of some passes: it is asked once whether a pass is `wanted`, and hears of no other.

    Of a wanted pass it hears the start, every batch that this process has, and the end.
    """

    def wanted(self, now: Pass) -> bool:
        """Whether the pass concerns this callback; by default every one does."""
        return True

    def pass_starts(self, pl_module: BlockPass) -> None:
        """Before the first batch."""

    def batch_passed(self, pl_module: BlockPass, batch: dict[str, Tensor], batch_idx: int) -> None:
        """After the current block has seen a batch; `batch` holds the model's inputs in the first pass of a kind."""

    def pass_ends(self, pl_module: BlockPass) -> None:
        """After the last batch."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Lightning's hook: see `pass_starts`."""
        if self.wanted(pl_module.now):
            self.pass_starts(pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: BlockPass, outputs: object, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        """Lightning's hook: see `batch_passed`."""
        if not pl_module.no_batch and self.wanted(pl_module.now):
            self.batch_passed(pl_module, batch, batch_idx)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Lightning's hook: see `pass_ends`."""
        if self.wanted(pl_module.now):
            self.pass_ends(pl_module)
