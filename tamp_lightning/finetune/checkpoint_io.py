"""Lightning checkpoints written straight to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from tamp_lightning.files import atomic_write


class DirectCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file beside the final one and renames it.

    Lightning's own first makes the whole checkpoint in memory, twice, which here is more than training takes.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a local file; nothing half-written carries the final name."""
        with atomic_write(Path(path)) as scratch:
            torch.save(checkpoint, scratch)
