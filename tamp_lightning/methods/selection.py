"""Which linears of a model are pruned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tamp_lightning.methods.towers import Towers


@dataclass(frozen=True)
class Selection:
    """Linears of the decoder blocks by their full names, and what of towers and projector; by default all and none."""

    include: Sequence[str] = ()
    """Regular expressions; only linears whose full name one of them finds are prunable. Empty = all are."""
    exclude: Sequence[str] = ()
    """Regular expressions; linears whose full name one of them finds stay dense."""
    towers: Towers = field(default_factory=Towers)


ALL = Selection()
"""Every linear of the decoder blocks."""
