"""What every finished pass found out is noted on disk, and given back to the callbacks of a later run."""

from __future__ import annotations

import hashlib
from typing import Any

import lightning as L
import torch
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.passes.callbacks.allocation import AllocationCallback
from tamp_lightning.passes.callbacks.chosen import ChosenTokens
from tamp_lightning.passes.callbacks.progress import PhaseTimer
from tamp_lightning.passes.callbacks.pruning import PruningCallback
from tamp_lightning.passes.callbacks.towers import TowerPruning
from tamp_lightning.passes.contract import BlockPass
from tamp_lightning.runs.state import RunState
from tamp_lightning.stream.disk import DiskStream


class StateKeeper(L.Callback):
    """Keeps the scores of every measured block, and report and masks of every pruned one after its commit.

    Has to stand behind the callbacks that it watches. A run of mode one_shot, whose statistics live to its end, keeps
    no block and starts anew.
    """

    def __init__(
        self,
        state: RunState,
        allocation: AllocationCallback,
        pruning: PruningCallback,
        timer: PhaseTimer,
        watcher: ChosenTokens,
        towers: TowerPruning | None = None,
    ) -> None:
        self.state, self.allocation, self.pruning, self.timer, self.towers = state, allocation, pruning, timer, towers
        self.watcher = watcher
        self._keeps_blocks = allocation.method.mode != "one_shot"
        self._inputs: list[str] = []
        self._known = (state.load("inputs") or (None, {}))[0]

    def restore(self, stream: DiskStream) -> int:
        """Give the callbacks what an earlier run has found out; return the number of blocks it has pruned.

        Raises:
            InputError: a file of the earlier run is damaged.
        """
        for content, cosines in self.state.numbered("measured"):
            self.allocation.restore(content["scores"], cosines)
            self.timer.restore(content["seconds"])
        records = list(self.state.numbered("pruned"))
        towers, tower_masks = self.state.load("towers") or ({"report": {}, "unreached": []}, {})
        if self.towers is not None and not towers["report"]:
            records = []  # blocks behind dense towers are not what they were
        pruned = stream.resume(len(records), records[-1][0]["files"], list(towers["report"])) if records else 0
        if self.towers is not None and pruned > 0:
            self.towers.restore(towers, tower_masks)
        for content, masks in records[:pruned]:
            self.pruning.restore(content, masks)
            self.timer.restore(content["seconds"])
        if pruned > 0 and (chosen := self.state.load("chosen")):
            self.watcher.restore(*chosen)
        return pruned

    def setup(self, trainer: L.Trainer, pl_module: BlockPass, stage: str) -> None:
        """From now on note the scores of each block as soon as they are there."""
        if self.towers is not None:
            self.state.begin()  # they are committed before anything else is noted
        if self._keeps_blocks:
            self.allocation.on_scored = lambda index: self._keep_scores(trainer, pl_module, index)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: BlockPass, outputs: object, batch: Any, batch_idx: int
    ) -> None:
        """Compare what the model reads with what it read in the earlier run.

        Raises:
            InputError: it is something else.
        """
        if not pl_module.needs_inputs or pl_module.skip_forward or not trainer.is_global_zero:
            return
        self._inputs.append(_digest(batch))
        if self._known is not None and self._known[batch_idx : batch_idx + 1] != self._inputs[-1:]:
            raise InputError(
                f"calibration batch {batch_idx} is not what it was when {self.state.folder.parent} was started: "
                "bring its samples and media back, or choose another out"
            )
        if trainer.is_last_batch:  # before a block is committed, so that the folder is known to be unfinished by then
            if self._known is None:
                self.state.save("inputs", self._inputs)
            self._inputs = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Note a block that has just been pruned and committed."""
        if pl_module.now.prunes and self._keeps_blocks:
            self._keep_block(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """When the prune walk starts, note the towers, which have just been pruned, or take up what was noted."""
        if self.towers is None or not pl_module.now.starts_pruning:
            return
        content, masks = self.towers.record()
        if self.towers.restored:
            assert isinstance(pl_module.stream, DiskStream)
            pl_module.stream.load_towers(list(content["report"]))
        else:
            self.state.save("towers", content, masks)

    def _keep_scores(self, trainer: L.Trainer, pl_module: BlockPass, index: int) -> None:
        scores, cosines = self.allocation.record(_names(pl_module, index))
        content = {"scores": scores, "seconds": self.timer.lap()}
        if trainer.is_global_zero:
            self.state.save(f"measured-{index:05d}", content, cosines)

    def _keep_block(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        found, masks = self.pruning.record(_names(pl_module, pl_module.index))
        stream = pl_module.stream
        assert isinstance(stream, DiskStream)
        content = {**found, "files": stream.files, "seconds": self.timer.lap()}
        if trainer.is_global_zero:
            if self.watcher.watches(pl_module):  # first, for no process comes back to a block that is noted
                self.state.save("chosen", *self.watcher.record())
            self.state.save(f"pruned-{pl_module.index:05d}", content, masks)


def _names(pl_module: BlockPass, index: int) -> list[str]:
    return [linear.full for linear in pl_module.stream.facts.linears[index]]


def _digest(batch: dict[str, Tensor]) -> str:
    """sha256 over names, shapes and bytes of a batch's tensors."""
    digest = hashlib.sha256()
    for name in sorted(batch):
        value = batch[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
