"""Names, versions and checksums of the bitmask form: what its reader inside transformers needs, and nothing heavier."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tamp_lightning.errors import InputError
from tamp_lightning.export.codec import BITMASK, POSITIONS

METHOD = "tamp_bitmask"
"""`quant_method` in config.json."""
VERSION = 1
"""Of a folder whose values are those of the dense checkpoint."""
ROUNDED = 2
"""Of a folder with whole numbers and scales."""
EXPERTS = 3
"""Of a folder in which experts are encoded, with or without whole numbers."""
VERSIONS = (VERSION, ROUNDED, EXPERTS)
CODES = {BITMASK: "_bitmask", POSITIONS: "_positions"}
"""Ending of the tensor that says where the values stand, after the key of the weight."""
SCALES = "_scales"
"""Ending of the tensor with the scales of whole numbers."""
DENSE_HEADER = "tamp_bitmask.dense_header"
LAYOUT_VERSION = "tamp_bitmask.version"
BIT_TYPES: dict[str, Any] = {"F64": np.uint64, "F32": np.uint32, "F16": np.uint16, "BF16": np.uint16}
"""Integer of the same width, by the names of safetensors."""
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def version_of(experts: bool, rounded: bool) -> int:
    """The version that a file or folder is of: older readers refuse what they do not know."""
    return EXPERTS if experts else ROUNDED if rounded else VERSION


def check_section(section: dict[str, Any]) -> dict[str, str]:
    """The file checksums of a `quantization_config` section.

    Raises:
        InputError: the layout is of another version, or the section is damaged.
    """
    version, files = section.get("version"), section.get("files")
    if version not in VERSIONS:
        raise InputError(
            f"{METHOD} layout has version {version!r}, this tamp-lightning reads {VERSIONS[0]} to {VERSIONS[-1]}: "
            "install one that reads it"
        )
    if not isinstance(files, dict) or not files:
        raise InputError(f"{METHOD} section lists no files with their sha256: export the checkpoint again")
    return {str(name): str(digest) for name, digest in files.items()}


def verify(path: Path, digest: str | None) -> None:
    """Compare a weight file with the sha256 in config.json.

    Raises:
        InputError: it is another one.
    """
    if digest is None:
        raise InputError(f"{path} is not among the files that its config.json lists: fetch the checkpoint again")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise InputError(
            f"{path} is damaged: its sha256 starts with {found[:12]}, config.json says {digest[:12]}; fetch it again"
        )
