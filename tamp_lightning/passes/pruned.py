"""What came out of the passes over the blocks."""

from __future__ import annotations

from dataclasses import dataclass, field

from lightning.pytorch.loggers import Logger
from torch import Tensor

from tamp_lightning.passes.callbacks.chosen import Chosen
from tamp_lightning.runs.plan import Plan, Row, finished, linear_row, sparsity_of


@dataclass(frozen=True)
class Pruned:
    """What the walks over the blocks found out and decided."""

    scores: dict[str, float]
    """Diversity of each linear, if it was measured (what other rules measured stands in `linears`)."""
    cosines: dict[str, Tensor]
    """[4,4] mean cosines between modalities behind each score."""
    linears: dict[str, Row]
    """Per linear: weights kept, size, shape, sha256 of the mask, tokens that counted per sample."""
    token_share: dict[str, list[float]]
    """Per linear: share of text, image, video and audio among the tokens that counted."""
    masks: dict[str, Tensor]
    """Per linear: mask bits, eight to a byte, row order."""
    seconds: dict[str, float]
    """Wall-clock seconds of the measure and prune walks."""
    files: dict[str, str]
    """sha256 of every file the stream wrote."""
    towers: dict[str, Row] = field(default_factory=dict)
    """Per linear of towers and projector, as `linears`; empty where they stay dense."""
    unreached: list[str] = field(default_factory=list)
    """Linears of towers that were to be pruned, but that no calibration sample reached: they stay dense."""
    chosen: Chosen = field(default_factory=Chosen)
    """Tokens that counted in a few samples, and how many there were."""
    loggers: list[Logger] = field(default_factory=list)
    """Where the walks were logged to."""

    @property
    def sparsity(self) -> float:
        """Share of the decoder blocks' prunable weights whose mask bit is off."""
        return sparsity_of(self.linears)

    @property
    def plan(self) -> Plan:
        """What every linear kept, and why."""
        linears = {
            name: linear_row(row, self.token_share[name], self.scores.get(name), self.cosines.get(name))
            for name, row in self.linears.items()
        }
        return Plan(linears, {name: finished(row) for name, row in self.towers.items()})
