"""Scores of the dense and the pruned model from samples that ride along the prune walk."""

from __future__ import annotations

from collections.abc import Iterator

import lightning as L
from torch import Tensor

from tamp_lightning.checkpoint.head import head_logits
from tamp_lightning.evaluation.scoring import EXTRAS, Scores, Tally, answer_rows, score_loader
from tamp_lightning.evaluation.suite import Suite
from tamp_lightning.passes.callbacks.riding import Extras, Riders
from tamp_lightning.passes.contract import BlockPass


class ScoreRiders(Riders):
    """Scores a suite without a whole model in memory, to the figures of `engine.scoring.score`.

    Args:
        suite: what to score.
        batch_size: pictures per batch.
    """

    def __init__(self, suite: Suite, batch_size: int) -> None:
        super().__init__()
        self.suite, self.batch_size = suite, batch_size

    def board(self, trainer: L.Trainer) -> Iterator[tuple[dict[str, Tensor], Extras]]:
        """This process's batches of the suite."""
        loader, share = score_loader(self.suite, self.batch_size, trainer)
        device = trainer.strategy.root_device
        self.dense, self.pruned = Tally(self.suite, share).to(device), Tally(self.suite, share).to(device)
        for batch in loader:
            inputs = {k: v for k, v in batch.items() if k not in EXTRAS}
            yield inputs, {k: v for k, v in batch.items() if k in EXTRAS}

    def arrive(self, pl_module: BlockPass, extras: Extras, dense: Tensor, pruned: Tensor) -> None:
        """Score one batch of both models."""
        batch = {k: v.to(dense.device) for k, v in extras.items()}
        wanted, labels, first = answer_rows(batch)
        stream = pl_module.stream
        before, after = (
            head_logits(stream.model, stream.facts.blocks, hidden[wanted]).float().log_softmax(-1)
            for hidden in (dense, pruned)
        )
        self.dense.add(batch, before, labels, first)
        self.pruned.add(batch, after, labels, first)
        self.pruned.compare(batch, before[self.pruned.counted(batch)], after, labels, first)

    def scores(self) -> tuple[Scores, Scores]:
        """What the dense and the pruned model did, over all processes; to be called once all have arrived."""
        return self.dense.scores(), self.pruned.scores()
