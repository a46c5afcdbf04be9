"""predictions.parquet, and hashes of what was asked."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def digest(content: Any) -> str:
    """sha256 of a value as JSON, keys sorted."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, content: Any) -> None:
    """JSON under its name only when complete; NaN is refused."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # other processes write the same
    scratch.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    scratch.replace(path)
