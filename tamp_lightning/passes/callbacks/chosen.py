"""Which tokens of a few calibration samples counted, kept for whoever looks at the run afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from torch import Tensor

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.distributed.collectives import all_gather
from tamp_lightning.distributed.partition import BatchPartition
from tamp_lightning.ops.diversity import MODALITIES
from tamp_lightning.ops.drift import TEXT
from tamp_lightning.passes.contract import BlockPass

LIMIT = 3


@dataclass
class Watched:
    """One calibration sample, its padding left out."""

    id: int
    """Its position in the data set."""
    modality: Tensor
    """[n] int64: 0 text, 1 image, 2 video, 3 audio."""
    counts: dict[int, Tensor] = field(default_factory=dict)
    """Block -> [n] int64: how many of its linears chose the token."""
    linears: dict[int, int] = field(default_factory=dict)
    """Block -> how many linears chose."""


@dataclass
class Chosen:
    """What is known of the tokens of a run."""

    samples: list[Watched] = field(default_factory=list)
    """The first samples with a picture, video or sound."""
    totals: Tensor = field(default_factory=lambda: torch.zeros(len(MODALITIES), dtype=torch.int64))
    """[4] tokens of each modality in all calibration samples, padding left out."""


class ChosenTokens(L.Callback):
    """Notes the token choice of the first, middle and last block for the first samples that are not text alone.

    It is handed what `StatisticsCollector` has computed anyway: a few comparisons per batch of three blocks.

    Args:
        limit: how many samples to watch.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.chosen = Chosen()
        self._first: int | None = None
        self._waiting: list[tuple[Watched, Tensor, Tensor]] = []
        """Sample, votes [n], and which tokens count [n], of the current pass."""

    def note(self, pl_module: BlockPass, weights: Mapping[Linear, Tensor]) -> None:
        """Note the batch's watched samples.

        Args:
            pl_module: its `current` is the batch.
            weights: token weights [B,n] of each linear of the current block.
        """
        if not weights:
            return
        current = pl_module.current
        self._first = pl_module.index if self._first is None else self._first
        if pl_module.index == self._first:
            self._meet(current.ids, current.modality, current.counted)
        if not self.watches(pl_module):
            return
        rows = {sample: row for row, sample in enumerate(current.ids.tolist())}
        for sample in self.chosen.samples:
            if (row := rows.get(sample.id)) is not None:
                votes = torch.stack([own[row] > 0 for own in weights.values()])
                self._waiting.append((sample, votes.sum(0), current.counted[row]))
                sample.linears[pl_module.index] = len(weights)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Bring what was noted to the CPU; before, it would have to be waited for in every batch."""
        for sample, votes, counted in self._waiting:
            sample.counts[pl_module.index] = votes[counted].cpu()
        self._waiting.clear()

    def on_fit_end(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Put together what the processes have seen, in the order of batches."""
        parts = all_gather(pl_module.partition, self.chosen)
        samples = [sample for part in parts for sample in part.samples][: self.limit]
        self.chosen = Chosen(samples, torch.stack([part.totals for part in parts]).sum(0))

    def watches(self, pl_module: BlockPass) -> bool:
        """Whether the choice of the current block is noted."""
        last = len(pl_module.stream.facts.linears) - 1
        return pl_module.index in (0, (last + 1) // 2, last)

    def record(self, partition: BatchPartition) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        """What all processes know so far as JSON values and tensors, for `restore`."""
        parts = all_gather(partition, self.chosen)
        samples = [(rank, sample) for rank, part in enumerate(parts) for sample in part.samples]
        content = [{"id": s.id, "linears": list(s.linears.items()), "process": rank} for rank, s in samples]
        tensors = {f"modality.{s.id}": s.modality for _, s in samples}
        tensors |= {f"counts.{s.id}.{k}": counts for _, s in samples for k, counts in s.counts.items()}
        return content, {"totals": torch.stack([part.totals for part in parts]).sum(0), **tensors}

    def restore(self, partition: BatchPartition, content: list[dict[str, Any]], tensors: Mapping[str, Tensor]) -> None:
        """Take up what this process had noted in an earlier run, its first block and so all samples among it.

        The first process takes the totals of all.
        """
        self._first = 0
        if partition.is_first:
            self.chosen.totals = tensors["totals"]
        for row in content:
            if row.get("process", 0) != partition.rank:
                continue
            linears = dict(row["linears"])
            counts = {k: tensors[f"counts.{row['id']}.{k}"] for k in linears}
            self.chosen.samples.append(Watched(row["id"], tensors[f"modality.{row['id']}"], counts, linears))

    def _meet(self, ids: Tensor, modality: Tensor, valid: Tensor) -> None:
        """Count the batch's tokens, and watch its samples with media as long as there is room."""
        self.chosen.totals += torch.bincount(modality[valid], minlength=len(MODALITIES)).cpu()
        for row, sample in enumerate(ids.tolist()):
            if len(self.chosen.samples) == self.limit:
                break
            own = modality[row][valid[row]].cpu()
            if bool((own != TEXT).any()):
                self.chosen.samples.append(Watched(sample, own))
