"""plan.json: what every pruned linear kept, and why. Its rows are made here, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.ops.bits import mask_sha256
from tamp_lightning.ops.diversity import MODALITIES

SCHEMA = 1
"""Version of plan.json and run.json, written as `schema`. 0.1.0 wrote none; its files are read as they are."""

Row = dict[str, Any]
"""What is known of one linear, as JSON values.

Always: `kept` and `size` (numbers of weights), `shape` [o, c], `sha256` of the mask's packed bits, `sparsity`
(1 - kept / size). Of a prune run: `tokens_per_sample` (sum of token weights / samples), `token_share` (modality ->
share of that sum), and where they apply `lambda` (of the modality mix) or `width` (of the tilt) that was chosen for its
block, `block_error` (of block reconstruction), `diversity` and `cosine` (DAS; pair of modalities -> mean cosine),
`score` (of another allocation).
"""


def mask_row(mask: Tensor, **more: Any) -> Row:
    """The part of a row that a mask [o, c] decides, and whatever else is known."""
    kept, size = int(mask.count_nonzero()), mask.numel()
    return {"kept": kept, "size": size, "shape": list(mask.shape), "sha256": mask_sha256(mask), **more}


def finished(row: Row) -> Row:
    """A row with its `sparsity`."""
    return {**row, "sparsity": 1 - row["kept"] / row["size"]}


def linear_row(row: Row, token_share: Sequence[float], diversity: float | None, cosine: Tensor | None) -> Row:
    """The finished row of a decoder block's linear.

    Args:
        row: of `mask_row`.
        token_share: share of text, image, video and audio among the tokens that counted.
        diversity: 1 - mean cosine, if DAS measured it.
        cosine: [4,4] mean cosines behind it, NaN where a pair does not occur.
    """
    found = finished(row) | {"token_share": dict(zip(MODALITIES, token_share, strict=True))}
    return found if cosine is None else found | {"diversity": diversity, "cosine": _pairs(cosine)}


def _pairs(cosine: Tensor) -> dict[str, float]:
    return {
        f"{MODALITIES[i]}-{MODALITIES[j]}": float(cosine[i, j])
        for i in range(len(MODALITIES))
        for j in range(i, len(MODALITIES))
        if not cosine[i, j].isnan()
    }


def measured(row: Row) -> tuple[float, Tensor | None]:
    """What an allocation measured of a linear: its score, and the [4,4] mean cosines behind it if it was DAS."""
    score = row.get("diversity", row.get("score"))
    if "cosine" not in row:
        return score, None  # type: ignore[return-value]
    found = torch.full((len(MODALITIES), len(MODALITIES)), torch.nan, dtype=torch.float64)
    for names, value in row["cosine"].items():
        i, j = map(MODALITIES.index, names.split("-"))
        found[i, j] = found[j, i] = value
    return score, found  # type: ignore[return-value]


@dataclass(frozen=True)
class Plan:
    """Finished rows of all pruned linears, by full name."""

    linears: dict[str, Row]
    """Of the decoder blocks."""
    towers: dict[str, Row] = field(default_factory=dict)
    """Of towers and projector; empty where they stay dense."""

    @classmethod
    def of_masks(cls, masks: Mapping[str, Tensor]) -> Plan:
        """What can be told from masks alone."""
        return cls({name: finished(mask_row(mask)) for name, mask in masks.items()})

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Plan:
        """From the content of plan.json.

        Raises:
            InputError: a newer version of this package wrote it.
            KeyError: it has no linears.
        """
        check_schema(content, "plan.json")
        return cls(content["linears"], content.get("towers", {}))

    @property
    def content(self) -> dict[str, Any]:
        """Content of plan.json."""
        towers = {"towers_sparsity": self.towers_sparsity, "towers": self.towers} if self.towers else {}
        return {"schema": SCHEMA, "sparsity": self.sparsity, "linears": self.linears, **towers}

    @property
    def rows(self) -> dict[str, Row]:
        """Of decoder blocks, towers and projector."""
        return self.linears | self.towers

    @property
    def size(self) -> int:
        """Prunable weights of the decoder blocks."""
        return sum(row["size"] for row in self.linears.values())

    @property
    def zeroed(self) -> int:
        """How many of them were removed."""
        return self.size - sum(row["kept"] for row in self.linears.values())

    @property
    def sparsity(self) -> float:
        """Share of the decoder blocks' prunable weights that were removed."""
        return sparsity_of(self.linears)

    @property
    def towers_sparsity(self) -> float | None:
        """Share of the towers' and projector's prunable weights that were removed; None where they stay dense."""
        return sparsity_of(self.towers) if self.towers else None


def sparsity_of(rows: Mapping[str, Row]) -> float:
    """Share of the linears' weights that were removed; 0 for none."""
    size = sum(row["size"] for row in rows.values())
    return 1 - sum(row["kept"] for row in rows.values()) / size if size else 0.0


def check_schema(content: Mapping[str, Any], name: str) -> None:
    """Refuse what only a newer version of this package can read.

    Raises:
        InputError: naming file and version.
    """
    schema = content.get("schema", 0)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise InputError(f"{name} has schema {schema!r}, this version reads up to {SCHEMA}: update tamp-lightning")
