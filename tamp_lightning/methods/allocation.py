"""How many weights each linear keeps under one global budget, linear by linear."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.ops.allocation import allocate, to_counts
from tamp_lightning.ops.diversity import diversity_score, modality_cosine
from tamp_lightning.registry import Registry

Basis = Literal["nothing", "depth", "weights", "inputs", "outputs", "loss"]
"""What scores rest on. The last three need a walk over the dense model's activations."""

WALKS = ("inputs", "outputs", "loss")


class Allocation(Protocol):
    """Shares the budget of kept weights among the linears."""

    basis: ClassVar[Basis]
    """What the rule's scores are made of."""

    def kept(self, sizes: dict[str, int], sparsity: float, scores: dict[str, float] | None = None) -> dict[str, int]:
        """Kept weights of each linear, summing to round(total * (1 - sparsity)).

        Args:
            sizes: number of weights of each linear.
            sparsity: fraction of all weights to remove, 0 <= sparsity < 1.
            scores: score of each linear; None is allowed if the basis is nothing.

        Raises:
            InputError: a score is missing or impossible, or the budget cannot be met.
        """


ALLOCATIONS: Registry[type[Allocation]] = Registry("allocation", "tamp_lightning.allocations")


@ALLOCATIONS.register("uniform")
@dataclass(frozen=True)
class Uniform:
    """The same sparsity everywhere, to within a weight."""

    says: ClassVar[str] = "every linear gives up the same share"
    basis: ClassVar[Basis] = "nothing"

    def kept(self, sizes: dict[str, int], sparsity: float, scores: dict[str, float] | None = None) -> dict[str, int]:
        """Kept weights of each linear; scores are not read."""
        return to_counts(dict.fromkeys(sizes, sparsity), sizes, total_sparsity=sparsity)


@ALLOCATIONS.register("constant")
@dataclass(frozen=True)
class Constant:
    """Control for DAS: its allocator with all scores equal, which already keeps small linears denser."""

    cap_margin: float = 0.1
    """No linear is sparser than the target plus this; at least 0."""

    says: ClassVar[str] = "the budget is shared as by DAS with all scores equal"
    basis: ClassVar[Basis] = "nothing"

    def __post_init__(self) -> None:
        check_bounds("constant", self.cap_margin)

    def kept(self, sizes: dict[str, int], sparsity: float, scores: dict[str, float] | None = None) -> dict[str, int]:
        """Kept weights of each linear; scores are not read."""
        return allocate(dict.fromkeys(sizes, 1.0), sizes, sparsity=sparsity, cap=min(sparsity + self.cap_margin, 1.0))


@ALLOCATIONS.register("das")
@dataclass(frozen=True)
class Das:
    """Diversity-aware sparsity: linears whose output tokens differ more keep more (TAMP section 3.2)."""

    cap_margin: float = 0.1
    """No linear is sparser than the target plus this; at least 0."""
    floor: float = 0.0
    """No linear is less sparse than this; from 0 to the target."""
    size_weighted: bool = False
    """Share the budget by score times size instead of by score alone."""
    positive_only: bool = False
    """Average only positive cosines within a modality, as the released code does; slower."""

    title: ClassVar[str] = "DAS"
    says: ClassVar[str] = "linears whose outputs are more diverse keep more"
    basis: ClassVar[Basis] = "outputs"

    def __post_init__(self) -> None:
        check_bounds("das", self.cap_margin, self.floor)

    def score(self, outputs: Tensor, modality: Tensor, valid: Tensor) -> Tensor:
        """Mean cosines of each sample, [B, 4, 4], of outputs [B, n, d] (`ops.diversity.modality_cosine`)."""
        return modality_cosine(outputs, modality, valid=valid, positive_only=self.positive_only)

    def combine(self, cosines: Tensor) -> float:
        """Score of a linear from its samples' cosines.

        Each modality pair is averaged over the samples that have it; a pair that no sample has is left out.

        Args:
            cosines: [samples, 4, 4] from `score`, all samples together.

        Returns:
            Mean of 1 - cosine over the pairs, 0 to 2.

        Raises:
            InputError: no sample has any pair.
        """
        score = diversity_score(cosines.double().nanmean(0))
        if math.isnan(score):
            raise InputError(f"nothing to compare in {len(cosines)} samples; samples need at least two tokens.")
        return max(score, 0.0)

    def kept(self, sizes: dict[str, int], sparsity: float, scores: dict[str, float] | None = None) -> dict[str, int]:
        """Kept weights of each linear, by score above what the cap guarantees (`ops.allocation.allocate`).

        Raises:
            InputError: scores are missing or impossible, or floor is above sparsity.
        """
        return _by_score(self, measured("das", scores), sizes, sparsity)


@ALLOCATIONS.register("ecoflap")
@dataclass(frozen=True)
class Ecoflap:
    """Linears in which noise changes the language-model loss more keep more (ECoFLaP); forward passes only."""

    samples: int = 32
    """Calibration samples that are used, the first ones; at least 1."""
    eps: float = 1e-3
    """Size of the noise; above 0."""
    seed: int = 0
    """Seed of the noise."""
    cap_margin: float = 0.1
    """No linear is sparser than the target plus this; at least 0."""
    floor: float = 0.0
    """No linear is less sparse than this; from 0 to the target."""
    size_weighted: bool = False
    """Share the budget by score times size instead of by score alone."""

    title: ClassVar[str] = "ECoFLaP"
    says: ClassVar[str] = "linears to which the loss is more sensitive keep more"
    basis: ClassVar[Basis] = "loss"

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InputError(f"ecoflap.samples is {self.samples}; it has to be at least 1, such as 32.")
        if not 0 < self.eps < math.inf:
            raise InputError(f"ecoflap.eps is {self.eps}; it has to be above 0, such as 1e-3.")
        check_bounds("ecoflap", self.cap_margin, self.floor)

    def kept(self, sizes: dict[str, int], sparsity: float, scores: dict[str, float] | None = None) -> dict[str, int]:
        """Kept weights of each linear, by sensitivity above what the cap guarantees (`ops.allocation.allocate`).

        Raises:
            InputError: scores are missing or impossible, or floor is above sparsity.
        """
        return _by_score(self, measured("ecoflap", scores), sizes, sparsity)


def _by_score(rule: Das | Ecoflap, scores: dict[str, float], sizes: dict[str, int], sparsity: float) -> dict[str, int]:
    cap = min(sparsity + rule.cap_margin, 1.0)
    return allocate(scores, sizes, sparsity=sparsity, cap=cap, floor=rule.floor, size_weighted=rule.size_weighted)


def measured(section: str, scores: dict[str, float] | None) -> dict[str, float]:
    """The scores, if there are any.

    Raises:
        InputError: there are none.
    """
    if scores is None:
        raise InputError(f"the allocation {section} got no scores; measure first or use allocation: constant.")
    return scores


def check_bounds(section: str, margin: float, floor: float = 0.0) -> None:
    """Raise InputError unless margin >= 0 and 0 <= floor < 1."""
    if not margin >= 0:
        raise InputError(f"{section}.cap_margin is {margin}; it has to be at least 0, such as 0.1.")
    if not 0 <= floor < 1:
        raise InputError(f"{section}.floor is {floor}; it has to be at least 0 and below 1.")
