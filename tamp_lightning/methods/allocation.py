"""How many weights each linear keeps under one global budget."""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from tamp_lightning.ops.allocation import allocate, to_counts
from tamp_lightning.ops.diversity import diversity_score, modality_cosine


class Allocation(Protocol):
    """Shares the budget of kept weights among the linears."""

    needs_measure: ClassVar[bool]
    """The rule needs scores from a pass over the dense model."""

    def kept(self, sizes: dict[str, int], sparsity: float, scores: dict[str, float] | None = None) -> dict[str, int]:
        """Kept weights of each linear, summing to round(total * (1 - sparsity)).

        Args:
            sizes: number of weights of each linear.
            sparsity: fraction of all weights to remove, 0 <= sparsity < 1.
            scores: score of each linear; None is allowed unless `needs_measure`.

        Raises:
            ValueError: a score is missing or impossible, or the budget cannot be met.
        """


@dataclass(frozen=True)
class Uniform:
    """The same sparsity everywhere, to within a weight."""

    needs_measure: ClassVar[bool] = False

    def kept(self, sizes: dict[str, int], sparsity: float, scores: dict[str, float] | None = None) -> dict[str, int]:
        """Kept weights of each linear; scores are not read."""
        return to_counts(dict.fromkeys(sizes, sparsity), sizes, total_sparsity=sparsity)


@dataclass(frozen=True)
class Constant:
    """Control for DAS: its allocator with all scores equal, which already keeps small linears denser."""

    cap_margin: float = 0.1
    """No linear is sparser than the target plus this; at least 0."""

    needs_measure: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_margin("constant", self.cap_margin)

    def kept(self, sizes: dict[str, int], sparsity: float, scores: dict[str, float] | None = None) -> dict[str, int]:
        """Kept weights of each linear; scores are not read."""
        return allocate(dict.fromkeys(sizes, 1.0), sizes, sparsity=sparsity, cap=min(sparsity + self.cap_margin, 1.0))


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

    needs_measure: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_margin("das", self.cap_margin)
        if not 0 <= self.floor < 1:
            raise ValueError(f"das.floor is {self.floor}; it has to be at least 0 and below 1.")

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
            ValueError: no sample has any pair.
        """
        score = diversity_score(cosines.double().nanmean(0))
        if math.isnan(score):
            raise ValueError(f"das has nothing to compare in {len(cosines)} samples; samples need at least two tokens.")
        return max(score, 0.0)

    def kept(self, sizes: dict[str, int], sparsity: float, scores: dict[str, float] | None = None) -> dict[str, int]:
        """Kept weights of each linear, by score above what the cap guarantees (`ops.allocation.allocate`).

        Raises:
            ValueError: scores are missing or impossible, or floor is above sparsity.
        """
        if scores is None:
            raise ValueError("the allocation das got no scores; measure first or use allocation: constant.")
        return allocate(
            scores,
            sizes,
            sparsity=sparsity,
            cap=min(sparsity + self.cap_margin, 1.0),
            floor=self.floor,
            size_weighted=self.size_weighted,
        )


def _check_margin(section: str, margin: float) -> None:
    if not margin >= 0:
        raise ValueError(f"{section}.cap_margin is {margin}; it has to be at least 0, such as 0.1.")
