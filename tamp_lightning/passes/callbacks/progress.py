"""A progress bar that names the walk and the block, and the seconds each phase took."""

from __future__ import annotations

import time

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar

from tamp_lightning.passes.callbacks.plain_progress import PlainProgress, PlainScoreProgress, is_live
from tamp_lightning.passes.contract import BlockPass


def title(pl_module: BlockPass) -> str:
    """What the current epoch does, e.g. "prune 5/30"."""
    return f"{_phase(pl_module)} {pl_module.index + 1}/{len(pl_module.stream.facts.linears)}"


def _phase(pl_module: BlockPass) -> str:
    return "replay" if pl_module.now.replays else pl_module.now.kind


def block_progress() -> ProgressBar:
    """What shows the passes over the blocks: a bar, or lines where bars cannot be drawn."""
    return BlockProgressBar() if is_live() else PlainBlockProgress()


def score_progress(name: str) -> ProgressBar:
    """What shows `trainer.validate` under the name of a phase: a bar, or lines where bars cannot be drawn."""
    return ScoreProgressBar(name) if is_live() else PlainScoreProgress(name)


class PlainBlockProgress(PlainProgress):
    """The passes over the blocks as lines, counted in blocks."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Start a phase with its first pass; count the blocks before this one."""
        if self.pace is None or self.pace.name != _phase(pl_module):
            self.begin(_phase(pl_module), len(pl_module.stream.facts.linears), "blocks")
        self.reached(pl_module.index)

    def on_train_end(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """End the last phase."""
        self.end()


class BlockProgressBar(RichProgressBar):
    """Lightning's rich bar with "measure 12/30" in place of the epoch number."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Name the pass."""
        super().on_train_epoch_start(trainer, pl_module)
        if self.progress is not None and self.train_progress_bar_id is not None:
            self.progress.update(self.train_progress_bar_id, description=title(pl_module))


class ScoreProgressBar(RichProgressBar):
    """Lightning's rich bar for `trainer.validate`, with a name of its own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    @property
    def validation_description(self) -> str:
        """What is being scored."""
        return self.name


class PhaseTimer(L.Callback):
    """Wall-clock seconds of each walk, in `seconds`; a pass lasts until the next one starts, its masking included.

    Carrying hidden states past the blocks that an earlier run finished is a phase of its own, "replay".
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._walk: str | None = None
        self._start = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Add the pass before this one to its walk."""
        self._close()
        self._walk = _phase(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Add the last pass."""
        self._close()

    def lap(self) -> dict[str, float]:
        """Seconds of each walk up to now."""
        walk = self._walk
        self._close()
        self._walk = walk
        return dict(self.seconds)

    def restore(self, seconds: dict[str, float]) -> None:
        """Take up the seconds of an earlier process of the run."""
        self.seconds = seconds

    def _close(self) -> None:
        now = time.perf_counter()
        if self._walk is not None:
            self.seconds[self._walk] = self.seconds.get(self._walk, 0.0) + now - self._start
        self._walk, self._start = None, now
