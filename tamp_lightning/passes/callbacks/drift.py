"""How far the current block turns each token, measured in a pass before the statistics are collected."""

from __future__ import annotations

import lightning as L
from torch import Tensor

from tamp_lightning.distributed.together import everyones
from tamp_lightning.ops.drift import drift, drift_totals
from tamp_lightning.passes.callbacks.tokens import check_finite
from tamp_lightning.passes.contract import BlockPass


class DriftCollector(L.Callback):
    """Averages the drift of all non-text tokens over the samples during a block's "drift" pass.

    Attributes:
        mean: the current block's mean drift, once that pass is over; 0 where no sample has other tokens than text.
    """

    def __init__(self) -> None:
        self.mean: float | None = None
        self._totals: dict[int, tuple[float, int]] = {}

    def rows(self, pl_module: BlockPass) -> Tensor:
        """Drift of each token of the current batch, float32 [B, n]."""
        return drift(pl_module.current.hidden, pl_module.output, pl_module.current.valid)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: BlockPass, *_: object) -> None:
        """Keep each sample's sum and number of drifts, by sample id, so that their order does not matter.

        Raises:
            InputError: a hidden state is NaN or infinite on a token that counts.
        """
        if pl_module.stage != "drift" or pl_module.idle:
            return
        current, rows = pl_module.current, self.rows(pl_module)
        check_finite(
            f"{pl_module.stream.facts.blocks}.{pl_module.index}", "outputs", rows.isfinite().all(1), current.ids
        )
        sums, counts = drift_totals(rows, current.modality, current.valid)
        pairs = zip(sums.tolist(), counts.tolist(), strict=True)
        self._totals.update(zip(current.ids.tolist(), pairs, strict=True))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Average once all samples have passed."""
        if pl_module.stage != "drift":
            return
        totals = {i: row for rows in everyones(pl_module.share, self._totals) for i, row in rows.items()}
        ordered = [totals[i] for i in sorted(totals)]
        count = sum(number for _, number in ordered)
        self.mean = sum(total for total, _ in ordered) / count if count else 0.0
        self._totals.clear()
