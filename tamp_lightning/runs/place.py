"""Where a run writes and computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch

from tamp_lightning.runs.environment import compute_dtype
from tamp_lightning.runs.fingerprint import fingerprint
from tamp_lightning.runs.folder import RunFolder
from tamp_lightning.runs.state import OthersState, RunState


@dataclass(frozen=True)
class Place:
    """Where a run writes and computes."""

    folder: RunFolder
    is_first: bool
    """Whether this process writes."""
    processes: int
    device: torch.device
    dtype: torch.dtype | None
    """None = the checkpoint's own."""

    @classmethod
    def find(cls, out: Path, dtype: str, trainer: L.Trainer) -> Place:
        """The place of what a trainer is to do in a run folder; `dtype` as a recipe names it."""
        device = trainer.strategy.root_device
        return cls(RunFolder(out), trainer.is_global_zero, trainer.world_size, device, compute_dtype(dtype, device))

    def state(self, source: Path, settings: Mapping[str, Any]) -> RunState:
        """What is kept of a run on the checkpoint in `source`, so that it can be continued with the same settings.

        Raises:
            InputError: the folder holds a run that was started with others.
        """
        if not self.is_first:
            return OthersState(self.folder.path)
        own = fingerprint(source, settings, self.dtype, self.device, self.processes)
        return RunState(self.folder.path, own)
