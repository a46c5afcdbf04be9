"""What every finished pass found out is noted on disk, and given back to the callbacks of a later run."""

from __future__ import annotations

import hashlib
from typing import Any

import lightning as L
import torch
from torch import Tensor

from tamp_lightning.distributed.collectives import all_gather, broadcast, broadcast_bits
from tamp_lightning.distributed.partition import BatchPartition
from tamp_lightning.errors import InputError
from tamp_lightning.passes.callbacks.allocation import AllocationCallback
from tamp_lightning.passes.callbacks.chosen import ChosenTokens
from tamp_lightning.passes.callbacks.progress import PhaseTimer
from tamp_lightning.passes.callbacks.pruning import PruningCallback
from tamp_lightning.passes.callbacks.towers import TowerPruning
from tamp_lightning.passes.contract import BlockPass
from tamp_lightning.runs.state import RunState
from tamp_lightning.stream.disk import DiskStream


class ResumeCallback(L.Callback):
    """Notes the scores of every measured block, and report and masks of every pruned one after its commit.

    Of several processes the first notes and restores, and tells the others (`runs.state.OthersState` keeps nothing).
    Has to stand after the callbacks that it reads. A run of mode one_shot, whose statistics live to its end, notes
    no block and starts anew.
    """

    def __init__(
        self,
        state: RunState,
        allocation: AllocationCallback,
        pruning: PruningCallback,
        timer: PhaseTimer,
        chosen: ChosenTokens,
        towers: TowerPruning | None = None,
    ) -> None:
        self.state, self.allocation, self.pruning, self.timer, self.towers = state, allocation, pruning, timer, towers
        self.chosen = chosen
        self._notes_blocks = allocation.method.mode != "one_shot"
        self._inputs: list[str] = []
        self._known = (state.load("inputs") or (None, {}))[0]
        self._watched: tuple[Any, dict[str, Tensor]] | None = None
        self._pruned = 0
        """Blocks that an earlier run has pruned."""

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
            records = []  # blocks after dense towers are not what they were
        pruned = stream.resume(len(records), records[-1][0]["files"], list(towers["report"])) if records else 0
        if self.towers is not None and pruned > 0:
            self.towers.restore(towers, tower_masks)
        for content, masks in records[:pruned]:
            self.pruning.restore(content, masks)
            self.timer.restore(content["seconds"])
        if pruned > 0 and (chosen := self.state.load("chosen")):
            self._watched = chosen
            self.chosen.restore(BatchPartition(1), *chosen)
        self._pruned = pruned
        return pruned

    def setup(self, trainer: L.Trainer, pl_module: BlockPass, stage: str) -> None:
        """Tell all processes what the first has restored; from now on note the scores of each block."""
        batches = trainer.datamodule.batches  # type: ignore[attr-defined]
        self._meet(BatchPartition(batches, trainer.global_rank, trainer.world_size), pl_module)
        if self.towers is not None:
            self.state.begin()  # they are committed before anything else is noted
        if self._notes_blocks:
            self.allocation.on_scored = lambda index: self._note_scores(pl_module, index)

    def _meet(self, partition: BatchPartition, pl_module: BlockPass) -> None:
        """Masks stay with the first process, for it alone writes them."""
        allocation, pruning, towers = self.allocation, self.pruning, self.towers
        if partition.processes > 1:
            found = (allocation.scores, allocation.cosines, allocation.measured, pruning.report, pruning.token_share)
            allocation.scores, allocation.cosines, allocation.measured, pruning.report, pruning.token_share = broadcast(
                partition, found
            )
            self._pruned, self._known = broadcast(partition, (self._pruned, self._known))
            if towers is not None:
                known = (towers.report, towers.unreached, towers.restored)
                towers.report, towers.unreached, towers.restored = broadcast(partition, known)
            pl_module.go_on(allocation.measured, self._pruned)
            chosen = broadcast(partition, self._watched)
            if chosen is not None and not partition.is_first:
                self.chosen.restore(partition, *chosen)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: BlockPass, outputs: object, batch: Any, batch_idx: int
    ) -> None:
        """Compare what the model reads with what it read in the earlier run.

        Raises:
            InputError: it is something else.
        """
        if not pl_module.needs_inputs or pl_module.skip_forward:
            return
        partition = pl_module.partition
        if not pl_module.no_batch:
            number = partition.own[batch_idx]
            self._inputs.append(_digest(batch))
            if self._known is not None and self._known[number : number + 1] != self._inputs[-1:]:
                raise InputError(
                    f"calibration batch {number} is not what it was when {self.state.folder.parent} was started: "
                    "bring its samples and media back, or choose another out"
                )
        if trainer.is_last_batch:  # before a block is committed, so that the folder is known to be unfinished by then
            if self._known is None:
                self.state.save("inputs", [digest for own in all_gather(partition, self._inputs) for digest in own])
            self._inputs = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Note a block that has just been pruned and committed."""
        if pl_module.now.prunes and self._notes_blocks:
            self._note_block(pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """When the prune walk starts, note the towers, which have just been pruned, or take up what was noted.

        Of blocks that an earlier run has pruned, the first process sends the weights to those that do not write.
        """
        now, partition = pl_module.now, pl_module.partition
        if now.starts_pruning:
            self._take_towers(pl_module)
        before = now.block - 1
        walks_on = now.kind == "prune" and not now.is_dense and now.is_first
        if partition.processes > 1 and walks_on and 0 <= before < self._pruned:
            stream = pl_module.stream
            block = stream.load(before)
            names = [*(linear.parameter for linear in stream.facts.linears[before]), *stream.scales(before)]
            broadcast_bits(partition, (block.get_parameter(name).data for name in dict.fromkeys(names)))

    def _take_towers(self, pl_module: BlockPass) -> None:
        towers, stream = self.towers, pl_module.stream
        if towers is None:
            return
        content, masks = towers.record()
        if towers.restored:
            assert isinstance(stream, DiskStream)
            stream.load_towers(list(content["report"]))
            weights = (stream.model.get_parameter(f"{name}.weight").data for name in content["report"])
            broadcast_bits(pl_module.partition, weights)
        else:
            self.state.save("towers", content, masks)

    def _note_scores(self, pl_module: BlockPass, index: int) -> None:
        scores, cosines = self.allocation.record(_names(pl_module, index))
        self.state.save(f"measured-{index:05d}", {"scores": scores, "seconds": self.timer.lap()}, cosines)

    def _note_block(self, pl_module: BlockPass) -> None:
        found, masks = self.pruning.record(_names(pl_module, pl_module.index))
        stream = pl_module.stream
        assert isinstance(stream, DiskStream)
        content = {**found, "files": stream.files, "seconds": self.timer.lap()}
        if self.chosen.watches(pl_module):  # first, for no process comes back to a block that is noted
            self.state.save("chosen", *self.chosen.record(pl_module.partition))
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
