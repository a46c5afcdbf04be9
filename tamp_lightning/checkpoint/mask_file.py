"""masks.safetensors of a run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from tamp_lightning.files import atomic_write

MASKS = "masks.safetensors"


def write_masks(folder: Path, bits: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> None:
    """Write a run folder's masks; the same masks make the same bytes.

    Args:
        folder: the run folder.
        bits: full linear name -> packed bits of its mask (`ops.bits.pack_bits`).
        shapes: full linear name -> shape of its mask, which goes into the metadata.
    """
    metadata = {name: json.dumps(list(shape)) for name, shape in shapes.items()}
    with atomic_write(folder / MASKS) as scratch:
        save_file({name: tensor.contiguous() for name, tensor in bits.items()}, scratch, metadata=metadata)
        _sort_metadata(scratch)


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in order: the library writes it in another one in every process."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length))
