"""Diversity that leans from a uniform budget, in place of sharing the budget by it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.methods.allocation import ALLOCATIONS, Basis, Das, measured
from tamp_lightning.methods.trials import Trial, check_trial
from tamp_lightning.ops.allocation import to_counts
from tamp_lightning.ops.diversity import MODALITIES
from tamp_lightning.ops.names import place_of
from tamp_lightning.ops.tilt import Within, tilted_sparsity


@ALLOCATIONS.register("diversity")
@dataclass(frozen=True)
class Diversity:
    """DAS without its prior for small linears: the same sparsity everywhere, and more diverse outputs lean from it."""

    width: float = 0.05
    """Farthest that a linear's sparsity lies from the target; at least 0, which is uniform."""
    within: Within = "kind"
    """Whose scores a linear's is compared with: all, those of its kind (q_proj of every block), or, a block's mean,
    those of other blocks."""
    pair: str = "all"
    """Between tokens of which modalities: all pairs that occur, as in das, or one pair, such as text-image."""
    widths: tuple[float, ...] = ()
    """Try these on every block in place of `width`, which then compares linears within their block only, and take the
    one with the smallest error of the block on held-out samples; below 0, more diverse linears keep less."""
    held_out: float = 0.25
    """Share of the samples that judge the widths and do not enter the statistics; above 0, at most 0.5."""

    title: ClassVar[str] = "Diversity tilt"
    says: ClassVar[str] = (
        "linears whose outputs are more diverse than others of their kind keep more, whatever their size"
    )
    basis: ClassVar[Basis] = "outputs"

    def __post_init__(self) -> None:
        if not 0 <= self.width < 1:
            raise InputError(f"diversity.width is {self.width}; it has to be at least 0 and below 1, such as 0.05.")
        if self.within not in ("all", "kind", "block"):
            raise InputError(f"diversity.within is {self.within!r}; it has to be all, kind or block.")
        if self.pair != "all" and (len(self._pair) != 2 or not set(self._pair) <= set(MODALITIES)):
            known = ", ".join(MODALITIES)
            raise InputError(
                f"diversity.pair is {self.pair!r}; it has to be all, or two of {known}, such as text-image."
            )
        if self.widths:
            check_trial("diversity", "widths", self.widths, self.held_out, -math.inf)
            if self.within == "block" or max(map(abs, self.widths)) >= 1:
                raise InputError(
                    f"diversity.widths is {self.widths} with within: {self.within}; each has to be above -1 and below "
                    "1, and within all or kind."
                )

    @property
    def trial(self) -> Trial | None:
        """What is tried on every block."""
        return Trial("diversity", "width", self.widths, self.held_out) if self.widths else None

    @property
    def _pair(self) -> list[str]:
        return self.pair.split("-")

    def score(self, outputs: Tensor, modality: Tensor, valid: Tensor) -> Tensor:
        """Mean cosines of each sample, [B, 4, 4], of outputs [B, n, d]; see `Das.score`."""
        return Das().score(outputs, modality, valid)

    def combine(self, cosines: Tensor) -> float:
        """Score of a linear from its samples' cosines; see `Das.combine`.

        Raises:
            InputError: no sample has the pair.
        """
        if self.pair == "all":
            return Das().combine(cosines)
        first, second = map(MODALITIES.index, self._pair)
        score = 1 - float(cosines.double().nanmean(0)[first, second])
        if math.isnan(score):
            raise InputError(
                f"diversity.pair is {self.pair}; no two such tokens are in any of {len(cosines)} samples: "
                "calibrate with samples that have them, or set diversity.pair: all"
            )
        return max(score, 0.0)

    def kept(self, sizes: dict[str, int], sparsity: float, scores: dict[str, float] | None = None) -> dict[str, int]:
        """Kept weights of each linear (`ops.tilt.tilted_sparsity`); of several widths, at the first.

        Raises:
            InputError: scores are missing or not finite.
        """
        known = measured("diversity", scores)
        if self.widths:
            return self.kept_at(self.widths[0], sizes, sparsity, known)
        lean = tilted_sparsity(known, sizes, self.width, self.within)
        return to_counts({k: sparsity + v for k, v in lean.items()}, sizes, total_sparsity=sparsity)

    def kept_at(self, width: float, sizes: dict[str, int], sparsity: float, scores: dict[str, float]) -> dict[str, int]:
        """The same for one of several widths: every block keeps as many weights as at any other."""
        lean = tilted_sparsity(scores, sizes, width, self.within, level=True)
        uniform = to_counts(dict.fromkeys(sizes, sparsity), sizes, total_sparsity=sparsity)
        blocks: dict[int, dict[str, int]] = {}
        for name, size in sizes.items():
            blocks.setdefault(place_of(name)[0], {})[name] = size
        found: dict[str, int] = {}
        for own in blocks.values():
            total = 1 - sum(uniform[name] for name in own) / sum(own.values())
            found |= to_counts({k: sparsity + lean[k] for k in own}, own, total_sparsity=total)
        return {name: found[name] for name in sizes}
