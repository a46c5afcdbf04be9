"""Ways of pruning a block among which samples that were held out choose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tamp_lightning.errors import InputError


@dataclass(frozen=True)
class Trial:
    """Values of one constant, each tried on every block; the one with the smallest error of its output stays."""

    section: str
    """Where it stands in a recipe."""
    constant: Literal["lambda", "width"]
    """Weight of other modalities than text in the statistics, or strength of a tilt; what plan.json calls it."""
    values: tuple[float, ...]
    held_out: float
    """Share of the samples that judge and do not enter the statistics."""
    by_text: bool = False
    """Judged by text alone; otherwise by all tokens that count."""

    def judges(self, sample: int) -> bool:
        """Whether a sample is held out, by its number alone: neither order nor batches matter."""
        period = round(1 / self.held_out)
        return sample % period == period - 1


def check_trial(section: str, name: str, values: tuple[float, ...], held_out: float, least: float) -> None:
    """Raise InputError unless there are finite values, each at least `least`, and 0 < held_out <= 0.5."""
    if not values or not all(least <= value < math.inf for value in values):
        bound = "" if least == -math.inf else f", at least {least:g}"
        raise InputError(f"{section}.{name} is {values}; each has to be a finite number{bound}.")
    if not 0 < held_out <= 0.5:
        raise InputError(f"{section}.held_out is {held_out}; it has to be above 0 and at most 0.5.")
