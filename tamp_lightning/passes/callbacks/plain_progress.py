"""Progress without a terminal: a few plain lines a phase, with the time it took and an estimate of what is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console

EVERY = 20.0
"""Seconds between two lines of a phase."""


def is_live() -> bool:
    """Whether bars can be drawn where the program prints: a terminal or a notebook."""
    console = Console()
    return console.is_terminal or console.is_jupyter


class Pace:
    """When a phase speaks, and what it says: at its start, then at most once in `EVERY` seconds, and at its end.

    Args:
        name: of the phase.
        total: units of work, such as blocks.
        unit: what they are, in the plural.
        clock: seconds.
    """

    def __init__(self, name: str, total: int, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self.total, self.unit, self.clock = name, total, unit, clock
        self.start = self.spoke = clock()

    def first(self) -> str:
        """The line of its start."""
        return f"{self.name}: {self.total} {self.unit}"

    def at(self, done: int) -> str | None:
        """The line after `done` units; None if the last one is too recent, or there is nothing to tell yet."""
        now = self.clock()
        if not done or now - self.spoke < EVERY:
            return None
        self.spoke = now
        left = (now - self.start) / done * (self.total - done)
        far = f"{self.name}: {done} of {self.total} {self.unit}"
        return f"{far} in {_spoken(now - self.start)}, about {_spoken(left)} left"

    def last(self) -> str:
        """The line of its end."""
        return f"{self.name}: done in {_spoken(self.clock() - self.start)}"


def _spoken(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


class PlainProgress(ProgressBar):
    """Lightning's progress as lines of a log; only the first process speaks."""

    def __init__(self) -> None:
        super().__init__()
        self.pace: Pace | None = None
        self._speaks = True

    def disable(self) -> None:
        """Say nothing."""
        self._speaks = False

    def enable(self) -> None:
        """Speak again."""
        self._speaks = True

    def begin(self, name: str, total: int, unit: str) -> None:
        """Start a phase, and end the one before it."""
        self.end()
        self.pace = Pace(name, total, unit)
        self._say(self.pace.first())

    def reached(self, done: int) -> None:
        """So many units of the phase are done."""
        if self.pace is not None:
            self._say(self.pace.at(done))

    def end(self) -> None:
        """End the phase."""
        if self.pace is not None:
            self._say(self.pace.last())
        self.pace = None

    def _say(self, line: str | None) -> None:
        if line and self._speaks:
            print(line, flush=True)


class PlainScoreProgress(PlainProgress):
    """`trainer.validate` as lines, under a name of its own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the phase."""
        self.begin(self.name, int(sum(trainer.num_val_batches)), "batches")

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        self.reached(sum(map(int, trainer.num_val_batches[:dataloader_idx])) + batch_idx + 1)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the phase."""
        self.end()


class PlainStepProgress(PlainProgress):
    """Training as lines, counted in steps of the optimiser."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the phase."""
        self.begin("train", int(trainer.estimated_stepping_batches), "steps")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step."""
        self.reached(trainer.global_step)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the phase."""
        self.end()
