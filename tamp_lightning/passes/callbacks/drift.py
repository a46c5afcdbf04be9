"""How far the current block turns each token, measured in a pass before the statistics are collected."""

from __future__ import annotations

from torch import Tensor

from tamp_lightning.distributed.together import everyones
from tamp_lightning.ops.drift import drift, drift_totals
from tamp_lightning.passes.callbacks.tokens import check_finite
from tamp_lightning.passes.contract import BlockPass, Pass, PassCallback


class DriftCollector(PassCallback):
    """Averages the drift of all non-text tokens over the samples during a block's "drift" pass."""

    def __init__(self) -> None:
        self._mean: float | None = None
        self._totals: dict[int, tuple[float, int]] = {}

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
        """Keep each sample's sum and number of drifts, by sample id, so that their order does not matter.

        Raises:
            InputError: a hidden state is NaN or infinite on a token that counts.
        """
        current, rows = pl_module.current, self.rows(pl_module)
        check_finite(
            f"{pl_module.stream.facts.blocks}.{pl_module.index}", "outputs", rows.isfinite().all(1), current.ids
        )
        sums, counts = drift_totals(rows, current.modality, current.counted)
        pairs = zip(sums.tolist(), counts.tolist(), strict=True)
        self._totals.update(zip(current.ids.tolist(), pairs, strict=True))

    def pass_ends(self, pl_module: BlockPass) -> None:
        """Average once all samples have passed."""
        totals = {i: row for rows in everyones(pl_module.share, self._totals) for i, row in rows.items()}
        ordered = [totals[i] for i in sorted(totals)]
        count = sum(number for _, number in ordered)
        self._mean = sum(total for total, _ in ordered) / count if count else 0.0
        self._totals.clear()
