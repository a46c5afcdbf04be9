"""Calibration samples drawn of all that a source has."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tamp_lightning.data.calibration import Sample, SampleList
from tamp_lightning.errors import InputError


def choose(total: int, count: int, seed: int, name: str) -> list[int]:
    """`count` of `total` positions without replacement, in ascending order.

    Raises:
        InputError: there are too few.
    """
    if not 0 < count <= total:
        raise InputError(f"{count} calibration samples wanted, {name} has {total}: ask for 1 to {total}")
    return sorted(random.Random(seed).sample(range(total), count))


@dataclass(frozen=True)
class Pool:
    """All that a source has, of which calibration samples are drawn."""

    name: str
    """What an error calls it."""
    size: int
    make: Callable[[int], Sample]
    """The sample at a position."""

    def draw(self, count: int, seed: int) -> SampleList:
        """`count` samples without replacement, in the order of the source.

        Raises:
            InputError: there are too few.
        """
        chosen = choose(self.size, count, seed, self.name)
        return SampleList(count, lambda index: self.make(chosen[index]))
