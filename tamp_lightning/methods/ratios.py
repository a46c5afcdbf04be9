"""Allocations that give every decoder block a sparsity, which all its linears share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.methods.allocation import ALLOCATIONS, Basis, check_bounds, measured
from tamp_lightning.ops.allocation import to_counts
from tamp_lightning.ops.layer_scores import alpha_sparsity, dlp_sparsity, outlier_ratio, owl_sparsity, ramp_sparsity
from tamp_lightning.ops.spectrum import hill_alpha

Counts = dict[str, int]
Scores = dict[str, float]


@ALLOCATIONS.register("owl")
@dataclass(frozen=True)
class Owl:
    """Blocks with more outliers among their Wanda scores keep more (OWL, arXiv 2310.05175)."""

    m: float = 5.0
    """An outlier exceeds so many times the block's mean score; above 0."""
    lam: float = 0.08
    """Half the distance between the sparsest and the densest block; at least 0."""
    cap_margin: float = 1.0
    """No linear is sparser than the target plus this; at least 0."""
    floor: float = 0.0
    """No linear is less sparse than this; from 0 to the target."""

    title: ClassVar[str] = "OWL"
    says: ClassVar[str] = "blocks with more outliers keep more"
    basis: ClassVar[Basis] = "inputs"

    def __post_init__(self) -> None:
        if not self.m > 0:
            raise InputError(f"owl.m is {self.m}; it has to be above 0, such as 5.")
        _check_width("owl", "lam", self.lam)
        check_bounds("owl", self.cap_margin, self.floor)

    def block_score(self, scores: Sequence[Tensor]) -> float:
        """Per cent of outliers among the Wanda scores of a block's linears (`ops.layer_scores.outlier_ratio`)."""
        return outlier_ratio(scores, self.m)

    def kept(self, sizes: Counts, sparsity: float, scores: Scores | None = None) -> Counts:
        """Kept weights of each linear; see `ops.layer_scores.owl_sparsity`.

        Raises:
            InputError: scores are missing or not finite, or floor is above sparsity.
        """
        found = measured("owl", scores)
        ratios = owl_sparsity(list(found.values()), sparsity, self.lam)
        return _counts(self, found, ratios, sizes, sparsity)


@ALLOCATIONS.register("dlp")
@dataclass(frozen=True)
class Dlp:
    """Blocks with a larger mean Wanda score lose more, so mostly the later ones (DLP, arXiv 2505.23807)."""

    alpha: float = 0.15
    """Half the distance between the sparsest and the densest block; at least 0."""
    cap_margin: float = 1.0
    """No linear is sparser than the target plus this; at least 0."""
    floor: float = 0.0
    """No linear is less sparse than this; from 0 to the target."""

    title: ClassVar[str] = "DLP"
    says: ClassVar[str] = "blocks with a smaller mean score keep more"
    basis: ClassVar[Basis] = "inputs"

    def __post_init__(self) -> None:
        _check_width("dlp", "alpha", self.alpha)
        check_bounds("dlp", self.cap_margin, self.floor)

    def block_score(self, scores: Sequence[Tensor]) -> float:
        """Mean of the Wanda scores of all weights of a block."""
        total = sum(float(part.double().sum()) for part in scores)
        return total / sum(part.numel() for part in scores)

    def kept(self, sizes: Counts, sparsity: float, scores: Scores | None = None) -> Counts:
        """Kept weights of each linear; see `ops.layer_scores.dlp_sparsity`.

        Raises:
            InputError: scores are missing or not finite, or floor is above sparsity.
        """
        found = measured("dlp", scores)
        return _counts(self, found, dlp_sparsity(list(found.values()), sparsity, self.alpha), sizes, sparsity)


@ALLOCATIONS.register("alpha")
@dataclass(frozen=True)
class Alpha:
    """Blocks whose weights have a heavier-tailed spectrum keep more (AlphaPruning, arXiv 2410.10912); no data."""

    epsilon: float = 0.3
    """Half the relative spread of sparsities over the blocks; 0 to 1."""
    xmin: Literal["mid", "peak"] = "mid"
    """Where the tail starts: at the median eigenvalue, or at the best fit around the most common one."""
    cap_margin: float = 1.0
    """No linear is sparser than the target plus this; at least 0."""
    floor: float = 0.0
    """No linear is less sparse than this; from 0 to the target."""

    title: ClassVar[str] = "AlphaPruning"
    says: ClassVar[str] = "blocks with heavier-tailed spectra keep more"
    basis: ClassVar[Basis] = "weights"

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 1:
            raise InputError(f"alpha.epsilon is {self.epsilon}; it has to be from 0 to 1, such as 0.3.")
        check_bounds("alpha", self.cap_margin, self.floor)

    def block_score(self, weights: Sequence[Tensor]) -> float:
        """Mean tail exponent of a block's weights (`ops.spectrum.hill_alpha`)."""
        return sum(hill_alpha(weight, self.xmin) for weight in weights) / len(weights)

    def kept(self, sizes: Counts, sparsity: float, scores: Scores | None = None) -> Counts:
        """Kept weights of each linear; see `ops.layer_scores.alpha_sparsity`.

        Raises:
            InputError: scores are missing or not finite, or floor is above sparsity.
        """
        found = measured("alpha", scores)
        ratios = alpha_sparsity(list(found.values()), [sizes[name] for name in found], sparsity, self.epsilon)
        return _counts(self, found, ratios, sizes, sparsity)


@ALLOCATIONS.register("depth_ramp")
@dataclass(frozen=True)
class DepthRamp:
    """Control for DLP: sparsity rises linearly with depth; nothing is measured."""

    width: float = 0.15
    """How far the first block lies below the target and the last above; at least 0."""
    cap_margin: float = 1.0
    """No linear is sparser than the target plus this; at least 0."""
    floor: float = 0.0
    """No linear is less sparse than this; from 0 to the target."""

    says: ClassVar[str] = "later blocks give up more"
    basis: ClassVar[Basis] = "depth"

    def __post_init__(self) -> None:
        _check_width("depth_ramp", "width", self.width)
        check_bounds("depth_ramp", self.cap_margin, self.floor)

    def kept(self, sizes: Counts, sparsity: float, scores: Scores | None = None) -> Counts:
        """Kept weights of each linear; scores are block numbers (`ops.layer_scores.ramp_sparsity`).

        Raises:
            InputError: scores are missing, or floor is above sparsity.
        """
        found = measured("depth_ramp", scores)
        ramp = ramp_sparsity(1 + int(max(found.values())), sparsity, self.width)
        return _counts(self, found, ramp[[int(block) for block in found.values()]], sizes, sparsity)


def _counts(
    rule: Owl | Dlp | Alpha | DepthRamp, names: Scores, ratios: Tensor, sizes: Counts, sparsity: float
) -> Counts:
    """Exact counts of ratios given linear by linear: linears of one block have equal scores, so equal ratios.

    Means over linears rather than blocks only shift all ratios alike, and the budget fixes that shift anyway.
    """
    wanted = dict(zip(names, ratios.tolist(), strict=True))
    cap = min(sparsity + rule.cap_margin, 1.0)
    return to_counts(wanted, sizes, total_sparsity=sparsity, cap=cap, floor=rule.floor)


def _check_width(section: str, name: str, width: float) -> None:
    if not 0 <= width < float("inf"):
        raise InputError(f"{section}.{name} is {width}; it has to be a finite number, at least 0, such as 0.1.")
