"""Where in a linear zeros may stand."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from tamp_lightning.ops.masks import row_mask


class Pattern(Protocol):
    """Turns scores into a mask."""

    def mask(self, scores: Tensor, kept: int) -> Tensor:
        """Bool mask [o, c] of scores [o, c], True = keep, with exactly `kept` True."""


@dataclass(frozen=True)
class Row:
    """Unstructured within each output row; rows keep equal numbers, to within one."""

    def mask(self, scores: Tensor, kept: int) -> Tensor:
        """Bool mask [o, c], True = keep; see `ops.masks.row_mask`."""
        return row_mask(scores, kept)
