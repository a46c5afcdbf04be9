"""Where in a linear zeros may stand."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypedDict

from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.ops.masks import matrix_mask, nm_mask, row_mask
from tamp_lightning.registry import Registry

N_OF_M = re.compile(r"(\d+):(\d+)")


class Choice(TypedDict, total=False):
    """How the solvers that move weights are told what to prune (`ops.obs.sparsegpt`, `ops.admm.admm`)."""

    kept: int
    pattern: tuple[int, int]
    by_row: bool


class Pattern(Protocol):
    """Turns scores, or a number of weights to keep, into zeros at allowed places."""

    fixes_ratio: ClassVar[bool]
    """Every linear keeps the same share, so that there is no budget to allocate."""

    def mask(self, scores: Tensor, kept: int) -> Tensor:
        """Bool mask [o, c] of scores [o, c], True = keep, with exactly `kept` True."""

    def choice(self, kept: int) -> Choice:
        """The same for a solver that chooses while it moves weights."""

    def check(self, sparsity: float, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Raise InputError where linears of these shapes cannot have this sparsity; no weight is needed."""


PATTERNS: Registry[type[Pattern]] = Registry("pattern", "tamp_lightning.patterns")


@PATTERNS.register("row")
@dataclass(frozen=True)
class Row:
    """Unstructured within each output row; rows keep equal numbers, to within one."""

    says: ClassVar[str] = "anywhere in a row"
    fixes_ratio: ClassVar[bool] = False

    def mask(self, scores: Tensor, kept: int) -> Tensor:
        """Bool mask [o, c], True = keep; see `ops.masks.row_mask`."""
        return row_mask(scores, kept)

    def choice(self, kept: int) -> Choice:
        """So many weights, shared equally by the rows."""
        return {"kept": kept, "by_row": True}

    def check(self, sparsity: float, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Fits everything."""


@PATTERNS.register("matrix")
@dataclass(frozen=True)
class Matrix:
    """Unstructured: all weights of a linear compete with each other."""

    says: ClassVar[str] = "anywhere in a matrix"
    fixes_ratio: ClassVar[bool] = False

    def mask(self, scores: Tensor, kept: int) -> Tensor:
        """Bool mask [o, c], True = keep; see `ops.masks.matrix_mask`."""
        return matrix_mask(scores, kept)

    def choice(self, kept: int) -> Choice:
        """So many weights, wherever they stand."""
        return {"kept": kept, "by_row": False}

    def check(self, sparsity: float, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Fits everything."""


@dataclass(frozen=True)
class NofM:
    """At most n non-zeros in every m consecutive inputs, as NVIDIA and PyTorch count them."""

    n: int
    """Weights kept in each group."""
    m: int
    """Length of a group."""

    fixes_ratio: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise InputError(f"pattern is '{self}'; n:m keeps n of every m weights, 0 < n < m, such as '2:4'.")

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    def mask(self, scores: Tensor, kept: int) -> Tensor:
        """Bool mask [o, c], True = keep; see `ops.masks.nm_mask`.

        Raises:
            InputError: `kept` is not what the pattern keeps.
        """
        self._check_kept(kept, scores.numel())
        return nm_mask(scores, self.n, self.m)

    def choice(self, kept: int) -> Choice:
        """The pattern; it says how many by itself."""
        return {"pattern": (self.n, self.m)}

    def check(self, sparsity: float, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Compare the share kept with the sparsity and the group length with every linear's width.

        Raises:
            InputError: n / m is not 1 - sparsity, or m does not divide a width.
        """
        # a difference in the last digits only is how 1 - 1/3 is written
        if not math.isclose(self.n / self.m, 1 - sparsity, rel_tol=1e-12):
            wanted = 1 - self.n / self.m
            raise InputError(f"sparsity is {sparsity}; pattern '{self}' removes {wanted:g} of the weights: set that.")
        for name, (_, width) in shapes.items():
            if width % self.m:
                raise InputError(f"pattern '{self}' does not fit {name}: {self.m} does not divide its width, {width}.")

    def _check_kept(self, kept: int, size: int) -> None:
        if kept * self.m != size * self.n:
            raise InputError(f"pattern '{self}' keeps {size * self.n // self.m} of {size} weights, not {kept}.")


def parse_pattern(name: str) -> Pattern:
    """The pattern of a name: a registered one with its default constants, or n:m for any numbers.

    Raises:
        InputError: it is none of these, or n:m keeps nothing or everything.
    """
    if name in PATTERNS:
        return PATTERNS[name]()
    if found := N_OF_M.fullmatch(str(name)):
        return NofM(int(found[1]), int(found[2]))
    raise InputError(
        f"pattern is {name!r}; it has to be one of {', '.join(PATTERNS)}, or n:m in quotes, such as '2:4'."
    )
