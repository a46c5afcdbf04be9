"""How far the current block turns each token, measured in a pass before the statistics are collected."""

from __future__ import annotations

import torch
from torch import Tensor

from tamp_lightning.distributed.collectives import all_gather
from tamp_lightning.ops.drift import drift, drift_totals
from tamp_lightning.passes.callbacks.tokens import check_finite
from tamp_lightning.passes.contract import BlockPass, Pass, PassCallback


class DriftCollector(PassCallback):
    """Averages the drift of all non-text tokens over the samples during a block's "drift" pass."""

    def __init__(self) -> None:
        self._mean: float | None = None
        self._rows: list[tuple[Tensor, Tensor]] = []
        """Per batch: sample ids, and float64 [B,3] on the device: sum, number, and whether all of it is finite."""

    def rows(self, pl_module: BlockPass) -> Tensor:
        """Drift of each token of the current batch, float32 [B, n]."""
        return drift(pl_module.current.hidden, pl_module.output, pl_module.current.counted)

    def mean(self) -> float | None:
        """The current block's mean drift, once its pass is over; 0 where no sample has other tokens than text."""
        return self._mean

    def wanted(self, now: Pass) -> bool:
        """The pass that measures drift."""
        return now.stage == "drift"

    def batch_passed(self, pl_module: BlockPass, batch: object, batch_idx: int) -> None:
        """Keep each sample's sum and number of drifts, by sample id, so that their order does not matter."""
        current, rows = pl_module.current, self.rows(pl_module)
        sums, counts = drift_totals(rows, current.modality, current.counted)
        self._rows.append((current.ids, torch.stack([sums, counts.double(), rows.isfinite().all(1).double()], 1)))

    def pass_ends(self, pl_module: BlockPass) -> None:
        """Average once all samples have passed; only now wait for the device.

        Raises:
            InputError: a hidden state is NaN or infinite on a token that counts.
        """
        ids, rows = (torch.cat(column) for column in zip(*((i, r.cpu()) for i, r in self._rows), strict=True))
        self._rows.clear()
        check_finite(f"{pl_module.stream.facts.blocks}.{pl_module.index}", "outputs", rows[:, 2] == 1, ids)
        own = dict(zip(ids.tolist(), rows[:, :2].tolist(), strict=True))
        totals = {i: row for other in all_gather(pl_module.partition, own) for i, row in other.items()}
        ordered = [totals[i] for i in sorted(totals)]
        count = sum(number for _, number in ordered)
        self._mean = sum(total for total, _ in ordered) / count if count else 0.0
