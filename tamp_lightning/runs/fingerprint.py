"""Everything that decides the bits of a run: what a continued run has to share with the one it continues."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tamp_lightning.files import sha256_of
from tamp_lightning.runs.environment import environment

WEIGHTS = ".safetensors"
READ = (".json", ".jinja", ".model", ".txt")
"""Endings of the small files of a checkpoint that decide what a model and its processor do."""


def fingerprint(
    source: Path, settings: Mapping[str, Any], dtype: torch.dtype | None, device: torch.device, processes: int = 1
) -> dict[str, Any]:
    """What a run has to share with another to give the same bits.

    Args:
        source: checkpoint folder. Its small files count by their bytes; a file of weights by its header, its size and
            the time it was changed, for reading all of a large checkpoint once more would cost minutes.
        settings: everything that was asked for, as JSON values.
        dtype: what is computed in; None = the checkpoint's own.
        device: where.
        processes: how many.
    """
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return {
        "source": {path.name: _of_file(path) for path in sorted(source.iterdir()) if path.suffix in (*READ, WEIGHTS)},
        "settings": dict(settings),
        "compute": {
            "dtype": "auto" if dtype is None else str(dtype).removeprefix("torch."),
            "device": str(device),
            "processes": processes,
        },
        "environment": environment() | {"cpu": sorted(name for name, value in capabilities.items() if value is True)},
    }


def _of_file(path: Path) -> Any:
    if path.suffix != WEIGHTS:
        return sha256_of(path)
    status = path.stat()
    with path.open("rb") as file:
        length = file.read(8)
        header = file.read(int.from_bytes(length, "little")) if len(length) == 8 else b""
    changed = datetime.fromtimestamp(status.st_mtime, UTC).isoformat()
    return {"bytes": status.st_size, "changed": changed, "header": hashlib.sha256(header).hexdigest()}
