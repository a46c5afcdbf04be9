"""The run folder: everything needed to understand, repeat and use the result."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from tamp_lightning.checkpoint import mask_file
from tamp_lightning.checkpoint.reader import CheckpointReader
from tamp_lightning.ops.diversity import MODALITIES
from tamp_lightning.passes.trainer import Pruned


def plan_content(pruned: Pruned) -> dict[str, Any]:
    """Content of plan.json: per linear, what it kept and why."""

    def pairs(cosine: Tensor) -> dict[str, float]:
        return {
            f"{MODALITIES[i]}-{MODALITIES[j]}": float(cosine[i, j])
            for i in range(4)
            for j in range(i, 4)
            if not cosine[i, j].isnan()
        }

    linears = {}
    for name, row in pruned.linears.items():
        linears[name] = {**row, "sparsity": 1 - row["kept"] / row["size"]}
        linears[name]["token_share"] = dict(zip(MODALITIES, pruned.token_share[name], strict=True))
        if name in pruned.scores:
            linears[name] |= {"diversity": pruned.scores[name], "cosine": pairs(pruned.cosines[name])}
    return {"sparsity": pruned.sparsity, "linears": linears, **_towers(pruned)}


def _towers(pruned: Pruned) -> dict[str, Any]:
    if not pruned.towers:
        return {}
    rows = {name: {**row, "sparsity": 1 - row["kept"] / row["size"]} for name, row in pruned.towers.items()}
    return {"towers_sparsity": pruned.towers_sparsity, "towers": rows}


def sizes(dense: Path, pruned: Path) -> dict[str, Any]:
    """Numbers that the pruned checkpoint stores, a shared one once, and the bytes of the files before and after."""
    readers = {"dense": CheckpointReader(dense), "pruned": CheckpointReader(pruned)}
    tensors = [info for shard in readers["pruned"].shards.values() for info in shard.tensors.values()]
    stored = {name: sum(shard.size for shard in reader.shards.values()) for name, reader in readers.items()}
    return {"parameters": sum(math.prod(info.shape) for info in tensors), "checkpoint_bytes": stored}


def write_masks(out: Path, pruned: Pruned) -> None:
    """masks.safetensors: per linear the mask's bits (eight to a byte, row order), shapes in the metadata."""
    shapes = {name: row["shape"] for name, row in (pruned.linears | pruned.towers).items()}
    mask_file.write_masks(out, pruned.masks, shapes)
