"""What a prune run is made of once its recipe is taken apart: the passes, the scores, and what its folder says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
from transformers import PreTrainedModel

from tamp_lightning.config.recipe import CalibrationChoice
from tamp_lightning.data.calibration import CalibrationData, SampleList
from tamp_lightning.evaluation.layerwise import LayerwiseScores
from tamp_lightning.evaluation.scorer import Scorer
from tamp_lightning.evaluation.scoring import Scores
from tamp_lightning.evaluation.summary import prediction_rows, summarise
from tamp_lightning.evaluation.task import Task
from tamp_lightning.methods.method import Method
from tamp_lightning.passes.callbacks.layerwise import LayerwiseCallback
from tamp_lightning.passes.pruned import Pruned
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.runs.state import RunState
from tamp_lightning.stream.cache import CacheSpace
from tamp_lightning.stream.disk import DiskStream


@dataclass(frozen=True)
class Pruner:
    """The passes over the blocks, ready to start."""

    stream: DiskStream
    data: CalibrationData
    method: Method
    trainer: Mapping[str, Any]
    """Arguments of lightning.Trainer."""
    seed: int
    state: RunState | None
    """What is kept of the run; None if it could not be continued anyway."""
    space: CacheSpace | None
    """Where hidden states wait between two blocks; None = in RAM."""

    def run(self, layerwise: LayerwiseCallback | None) -> Pruned:
        """Prune every block; samples of `layerwise` pass them as well."""
        L.seed_everything(self.seed, verbose=False)
        kept: dict[str, Any] = {"state": self.state, "space": self.space, "layerwise": layerwise}
        return prune_stream(self.stream, self.data, self.method, **kept, **self.trainer)


@dataclass
class Scoring:
    """How the model scores before it is pruned and after; nothing where there is no task."""

    scorer: Scorer
    source: Path
    """Folder of the dense model."""
    layerwise: LayerwiseScores | None
    """What passes the blocks together with calibration to be scored; None if whole models are, or nothing is."""
    dense: list[Scores] = field(default_factory=list)
    """On each task, once they are known."""
    pruned: list[Scores] = field(default_factory=list)

    @property
    def tasks(self) -> Sequence[Task]:
        """What is scored."""
        return self.scorer.tasks

    def score_dense(self) -> None:
        """Score the source, unless nothing is scored or it is as it is pruned."""
        if self.tasks and self.layerwise is None:
            self.dense = self.scorer.score(self.source, "score dense")

    def score_pruned(self, folder: Path) -> None:
        """Score the checkpoint that was written."""
        if self.layerwise is not None:
            self.dense, self.pruned = self.layerwise.scores()
        elif self.tasks:
            self.pruned = self.scorer.score(folder, "score pruned", self.source)

    def metrics(self) -> dict[str, Any] | None:
        """Content of metrics.json; None if nothing was scored."""
        return summarise(self.tasks, self.dense, self.pruned) if self.pruned else None

    def rows(self) -> list[dict[str, Any]]:
        """Rows of predictions.parquet."""
        return [
            row
            for task, dense, pruned in zip(self.tasks, self.dense, self.pruned, strict=False)
            for row in prediction_rows(task, {"dense": dense, "pruned": pruned})
        ]


@dataclass(frozen=True)
class Provenance:
    """What a run folder says of where the run came from."""

    recipe: str
    """The recipe's name."""
    text: str
    """Content of recipe.yaml."""
    checkpoint: str
    """The dense model, as the recipe names it."""
    source: Path
    """Its folder."""
    model: PreTrainedModel
    """What is known of the model without its blocks: its config, and what it computes in."""
    seed: int
    method: Method
    calibration: CalibrationChoice
    samples: SampleList
    """The calibration samples, of which the page shows a few."""
