"""Which weights of a linear go, and whether the others move to make up for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.methods.checks import check_at_least_zero, check_share
from tamp_lightning.methods.patterns import Pattern
from tamp_lightning.methods.statistics import Statistics
from tamp_lightning.ops import scores
from tamp_lightning.ops.admm import admm
from tamp_lightning.ops.masks import keep_where
from tamp_lightning.ops.obs import sparsegpt
from tamp_lightning.ops.rounding import BITS, GROUP
from tamp_lightning.registry import Registry

Needs = Literal["nothing", "diagonal", "hessian"]
"""Statistics of a linear's inputs: none, sum of w x^2, or sum of w x x^T as well."""


Values = Literal["none", "int8", "int4"]
"""What the values that stay are rounded to."""


class Solver(Protocol):
    """Prunes one linear."""

    needs: ClassVar[Needs]
    """What the solver reads of the inputs. Optional beside it: `title`, its published name; `says`, what it does in a
    clause (default: the first line of the docstring); `moves = True` if the weights that stay change."""

    def solve(self, weight: Tensor, statistics: Statistics, kept: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """New weight and mask of a linear.

        Args:
            weight: [o, c], any floating dtype; not changed.
            statistics: of its inputs, with what `needs` asks for.
            kept: how many weights stay.
            pattern: where zeros may stand.

        Returns:
            Weight like `weight`, zero outside the mask, and the bool mask [o, c], True = keep.

        Raises:
            InputError: statistics are missing, not finite, or do not determine the weights.
        """


SOLVERS: Registry[type[Solver]] = Registry("solver", "tamp_lightning.solvers")


@SOLVERS.register("magnitude")
@dataclass(frozen=True)
class Magnitude:
    """The smallest weights go; no data is read."""

    title: ClassVar[str] = "Magnitude"
    says: ClassVar[str] = "the smallest weights go"
    needs: ClassVar[Needs] = "nothing"

    def solve(self, weight: Tensor, statistics: Statistics, kept: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """Keep the largest weights; statistics are not read."""
        return keep_best(weight, scores.magnitude(weight), kept, pattern)


@SOLVERS.register("wanda")
@dataclass(frozen=True)
class Wanda:
    """Weight magnitude times the norm of its input feature; the kept weights do not change."""

    title: ClassVar[str] = "Wanda"
    says: ClassVar[str] = "the weights with the smallest size times input norm go"
    needs: ClassVar[Needs] = "diagonal"

    def scores(self, weight: Tensor, sq_norm: Tensor) -> Tensor:
        """|W| * sqrt(sq_norm), float32 [o, c]."""
        return scores.wanda(weight, sq_norm)

    def solve(self, weight: Tensor, statistics: Statistics, kept: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """Keep the best by score as they are; see `Solver.solve`."""
        return keep_best(weight, self.scores(weight, statistics.diagonal()), kept, pattern)


@SOLVERS.register("ria")
@dataclass(frozen=True)
class Ria:
    """Magnitude relative to the weight's row and column, times a power of the input feature's norm (RIA)."""

    power: float = 0.5
    """Exponent of the feature norm, at least 0; 0 ignores activations."""

    title: ClassVar[str] = "RIA"
    says: ClassVar[str] = "the weights that matter least to their row and column go"
    needs: ClassVar[Needs] = "diagonal"

    def __post_init__(self) -> None:
        check_at_least_zero("ria", self, "power")

    def scores(self, weight: Tensor, sq_norm: Tensor) -> Tensor:
        """Relative importance, float32 [o, c] (`ops.scores.ria`)."""
        return scores.ria(weight, sq_norm, self.power)

    def solve(self, weight: Tensor, statistics: Statistics, kept: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """Keep the best by score as they are; see `Solver.solve`."""
        return keep_best(weight, self.scores(weight, statistics.diagonal()), kept, pattern)


@SOLVERS.register("sparsegpt")
@dataclass(frozen=True)
class SparseGpt:
    """Column by column; the columns after each make up for its loss (SparseGPT, optimal brain surgeon)."""

    block: int = 128
    """Columns between two updates of the rest of the matrix; at least 1."""
    damp: float = 0.01
    """Share of the mean diagonal added to the Hessian's diagonal; at least 0."""
    share: float = 0.2
    """Share of the all-token Hessian where a token rule leaves tokens out; 0 to 1."""
    values: Values = "none"
    """Round what stays, in the same sweep, to whole numbers of so many bits: for `tamp export --values`."""

    title: ClassVar[str] = "SparseGPT"
    says: ClassVar[str] = "weights go column by column and the others move to make up for it"
    moves: ClassVar[bool] = True
    needs: ClassVar[Needs] = "hessian"

    def __post_init__(self) -> None:
        if self.block < 1:
            raise InputError(f"sparsegpt.block is {self.block}; it has to be at least 1, such as 128.")
        if self.values != "none" and self.block % GROUP:
            raise InputError(f"sparsegpt.block is {self.block}; with values: {self.values} it has to be {GROUP} x n.")
        check_at_least_zero("sparsegpt", self, "damp")
        check_share("sparsegpt", self.share)

    def solve(self, weight: Tensor, statistics: Statistics, kept: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """Prune and move (`ops.obs.sparsegpt`); see `Solver.solve`."""
        hessian = statistics.blended(self.share)
        bits = BITS.get(self.values)
        return sparsegpt(weight, hessian, **pattern.choice(kept), block=self.block, damp=self.damp, bits=bits)


@SOLVERS.register("admm")
@dataclass(frozen=True)
class Admm:
    """Weights and mask found in turn by alternating directions; one factorisation per linear (ADMM-Grad)."""

    iterations: int = 20
    """How often the weights are solved for; at least 0."""
    mask_iterations: int = 15
    """In how many first iterations the mask is chosen anew; 0 fixes Wanda's mask."""
    schedule: Literal["cubic", "constant"] = "cubic"
    """cubic: the mask reaches its sparsity step by step; constant: it has it from the start."""
    rho: float = 1.0
    """Pull of the weights towards their masked values; above 0."""
    damp: float = 0.1
    """Share of the mean diagonal added to the scaled Hessian's diagonal; at least 0."""
    share: float = 0.2
    """Share of the all-token Hessian where a token rule leaves tokens out; 0 to 1."""
    values: Values = "none"
    """Round what stays to whole numbers of so many bits, in a sweep over the columns, for `tamp export --values`."""

    title: ClassVar[str] = "ADMM"
    says: ClassVar[str] = "the weights that stay are solved for anew"
    moves: ClassVar[bool] = True
    needs: ClassVar[Needs] = "hessian"

    def __post_init__(self) -> None:
        for name in ("iterations", "mask_iterations", "damp"):
            check_at_least_zero("admm", self, name)
        if not self.rho > 0:
            raise InputError(f"admm.rho is {self.rho}; it has to be above 0, such as 1.0.")
        check_share("admm", self.share)

    def solve(self, weight: Tensor, statistics: Statistics, kept: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """Prune and move (`ops.admm.admm`); see `Solver.solve`."""
        hessian = statistics.blended(self.share)
        moved, mask = admm(
            weight,
            hessian,
            **pattern.choice(kept),
            iterations=self.iterations,
            mask_iterations=self.mask_iterations,
            schedule=self.schedule,
            rho=self.rho,
            damp=self.damp,
        )
        return (moved, mask) if self.values == "none" else sparsegpt(moved, hessian, mask=mask, bits=BITS[self.values])


def keep_best(weight: Tensor, importance: Tensor, kept: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
    """Weights of greatest importance as they are, the others zero, and the mask: what solvers that only mask do."""
    mask = pattern.mask(importance, kept)
    return keep_where(weight, mask), mask
