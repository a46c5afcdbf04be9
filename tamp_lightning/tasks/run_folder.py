"""The run folder: everything needed to understand, repeat and use the result."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from tamp_lightning.checkpoint import mask_file
from tamp_lightning.checkpoint.reader import CheckpointReader
from tamp_lightning.evaluation.scoring import Scores
from tamp_lightning.evaluation.suite import Suite
from tamp_lightning.files import atomic_write
from tamp_lightning.metrics import corrected_retention, flips, retention
from tamp_lightning.ops.diversity import MODALITIES
from tamp_lightning.passes.trainer import Pruned


def summarise(suite: Suite, dense: Scores, pruned: Scores) -> dict[str, Any]:
    """Content of metrics.json: per benchmark and over all of them, dense beside pruned.

    Corrected retention is None where the dense model is not above the blind floor on some benchmark.
    """
    before, after, floor = suite.headline(dense.results), suite.headline(pruned.results), suite.floor()
    above = all(before[k] > floor[k] for k in before)
    seen = [k for kind in before for k, v in enumerate(dense.values[kind]) if v == v]
    both = [[v for kind in before for v in s.values[kind] if v == v] for s in (dense, pruned)]
    return {
        "split": suite.split,
        "questions": len(seen),
        "benchmarks": {k: {"floor": floor[k], "dense": before[k], "pruned": after[k]} for k in before},
        "retention": retention(before, after),
        "corrected_retention": corrected_retention(before, after, floor) if above else None,
        "flips": flips(*both),
        "fidelity": pruned.results["fidelity"],
        "dense": dense.results,
        "pruned": pruned.results,
    }


def prediction_rows(suite: Suite, dense: Scores, pruned: Scores) -> list[dict[str, Any]]:
    """One row per question: what was asked, the right answer, what both models said, its score in [0, 1].

    `kl` is the mean over the answer's tokens; `dense_certainty` and `pruned_certainty` are the right answer's
    probability among those that are allowed.
    """
    return [
        {
            **row,
            "dense": dense.predictions[i],
            "pruned": pruned.predictions[i],
            "kl": pruned.divergence[i],
            "dense_score": dense.values[row["benchmark"]][i],
            "pruned_score": pruned.values[row["benchmark"]][i],
            "dense_certainty": dense.certainty[i],
            "pruned_certainty": pruned.certainty[i],
        }
        for i, row in enumerate(suite.rows())
    ]


def write_predictions(path: Path, suite: Suite, dense: Scores, pruned: Scores) -> None:
    """predictions.parquet: see `prediction_rows`."""
    rows = prediction_rows(suite, dense, pruned)
    with atomic_write(path) as scratch:
        pq.write_table(pa.Table.from_pylist(rows), scratch)


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
