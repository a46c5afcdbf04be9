"""masks.safetensors of a run folder: one bit per weight."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.files import atomic_write
from tamp_lightning.ops.bits import bits_sha256, pack_bits, unpack_bits
from tamp_lightning.runs.plan import Plan


def write_bits(path: Path, bits: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> None:
    """Write masks; the same masks make the same bytes.

    Args:
        path: masks.safetensors.
        bits: full linear name -> packed bits of its mask (`ops.bits.pack_bits`).
        shapes: full linear name -> shape of its mask, which goes into the metadata.
    """
    metadata = {name: json.dumps(list(shape)) for name, shape in shapes.items()}
    with atomic_write(path) as scratch:
        save_file({name: tensor.contiguous() for name, tensor in bits.items()}, scratch, metadata=metadata)
        _sort_metadata(scratch)


def write_masks(path: Path, masks: Mapping[str, Tensor]) -> None:
    """Write bool masks [o, c] by full linear name."""
    shapes = {name: mask.shape for name, mask in masks.items()}
    write_bits(path, {name: pack_bits(mask) for name, mask in masks.items()}, shapes)


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in order: the library writes it in another one in every process."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length))


def mask_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every mask by full linear name, from the header alone.

    Raises:
        InputError: the file does not say.
    """
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    try:
        return {name: tuple(json.loads(text)) for name, text in (header.get("__metadata__") or {}).items()}
    except (TypeError, ValueError):
        raise InputError(f"{path} does not say the shapes of its masks: is it of `tamp run`?") from None


def read_masks(path: Path, plan: Plan) -> dict[str, Tensor]:
    """Bool masks [o, c] by full linear name, True = kept.

    Raises:
        InputError: the file is missing or damaged, or a mask is not the one that the plan says.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: is {path.parent} a run folder of `tamp run`?")
    rows, masks = plan.rows, {}
    try:
        with safe_open(path, "pt") as file:
            shapes, names = file.metadata() or {}, sorted(file.keys())
            if names != sorted(rows):
                raise InputError(f"{path} has masks of {len(names)} linears, plan.json of {len(rows)}: not of one run")
            for name in names:
                bits = file.get_tensor(name)
                _check_sum(path, name, bits, rows[name].get("sha256"))
                masks[name] = _unpacked(path, name, bits, shapes.get(name))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or corrupt ({' '.join(str(error).split())}): prune again") from None
    return masks


def _check_sum(path: Path, name: str, bits: Tensor, expected: str | None) -> None:
    found = bits_sha256(bits)
    if found != expected:
        raise InputError(f"mask of {name} in {path} has sha256 {found[:12]}, plan.json says {str(expected)[:12]}")


def _unpacked(path: Path, name: str, bits: Tensor, text: str | None) -> Tensor:
    shape = tuple(json.loads(text)) if text else ()
    if bits.dtype != torch.uint8 or bits.dim() != 1 or len(bits) != -(-math.prod(shape) // 8):
        raise InputError(f"mask of {name} in {path} has {bits.numel()} bytes of {bits.dtype} for shape {shape}")
    return unpack_bits(bits, shape)
