"""Lightning checkpoints written straight to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO


class DirectCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file beside the final one and renames it.

    Lightning's own first makes the whole checkpoint in memory, twice, which here is more than training takes.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a local file; nothing half-written carries the final name."""
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_suffix(".tmp")
        torch.save(checkpoint, temporary)
        temporary.replace(final)
