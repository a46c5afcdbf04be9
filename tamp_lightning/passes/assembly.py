"""Which callbacks a run needs, and the one order in which they are called."""

from __future__ import annotations

from dataclasses import dataclass

import lightning as L

from tamp_lightning.methods.method import Method
from tamp_lightning.passes.callbacks.allocation import AllocationCallback
from tamp_lightning.passes.callbacks.attention import AttentionCollector
from tamp_lightning.passes.callbacks.chosen import ChosenTokens
from tamp_lightning.passes.callbacks.dense import DenseTwin
from tamp_lightning.passes.callbacks.drift import DriftCollector
from tamp_lightning.passes.callbacks.layerwise import LayerwiseCallback
from tamp_lightning.passes.callbacks.progress import PhaseTimer, block_progress
from tamp_lightning.passes.callbacks.pruning import PruningCallback
from tamp_lightning.passes.callbacks.resume import ResumeCallback
from tamp_lightning.passes.callbacks.statistics import StatisticsCollector
from tamp_lightning.passes.callbacks.tokens import TokenCollector
from tamp_lightning.passes.callbacks.towers import TowerPruning
from tamp_lightning.runs.state import RunState
from tamp_lightning.stream.base import Stream
from tamp_lightning.stream.cache import CacheSpace
from tamp_lightning.stream.disk import DiskStream


@dataclass(frozen=True)
class Assembly:
    """The callbacks of one run."""

    timer: PhaseTimer
    allocation: AllocationCallback
    pruning: PruningCallback
    chosen: ChosenTokens
    towers: TowerPruning | None
    """None where they stay dense."""
    resume: ResumeCallback | None
    """None where nothing is noted for a later run."""
    in_order: list[L.Callback]

    @classmethod
    def build(
        cls,
        stream: Stream,
        method: Method,
        space: CacheSpace | None = None,
        layerwise: LayerwiseCallback | None = None,
        state: RunState | None = None,
        progress: bool = False,
    ) -> Assembly:
        """Those that a method needs; see `passes.trainer.prune_stream` for the arguments."""
        collector = TokenCollector(outputs_read=method.reads_outputs)
        attention = AttentionCollector() if method.token_rule.needs_attention else None
        drift = DriftCollector() if "drift" in method.prune_stages else None
        dense = DenseTwin(collector, method.reconstruct.on, space) if method.follows_dense else None
        allocation = AllocationCallback(method, collector)
        chosen, timer = ChosenTokens(), PhaseTimer()
        statistics = StatisticsCollector(method, collector, attention, drift, dense, on_weights=chosen.note)
        pruning = PruningCallback(method, statistics, dense)
        towers = TowerPruning(stream.towers, method, dense) if stream.facts.towers else None
        noted = state if isinstance(stream, DiskStream) else None
        resume = ResumeCallback(noted, allocation, pruning, timer, chosen, towers) if noted is not None else None
        order = [
            timer,
            towers,  # before anything sees a sample of the passes that prune
            collector,  # hooks the block; all that follow are handed what it caught
            attention,
            drift,
            dense,
            allocation,  # the budget has to be known before a block is pruned
            statistics,
            chosen,
            pruning.chooser,  # decides how the block is pruned
            pruning,
            layerwise,  # pass the block once it is pruned
            resume,  # notes what all others have done
            block_progress() if progress else None,
        ]
        in_order: list[L.Callback] = [callback for callback in order if callback is not None]
        return cls(timer, allocation, pruning, chosen, towers, resume, in_order)
