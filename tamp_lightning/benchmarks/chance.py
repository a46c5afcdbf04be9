"""Chance level of a benchmark: what a guesser reaches who never sees the picture, the video or the sound."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from tamp_lightning.benchmarks.base import Benchmark
from tamp_lightning.data.readers.item import Item


def guess(benchmark: Benchmark, item: Item) -> float:
    """Probability that a candidate drawn at random is right; 0 where there is no closed set of answers."""
    candidates = benchmark.candidates(item) if benchmark.candidates else list(filter(None, item.options))
    return 1 / len(candidates) if candidates else 0.0


def chance_level(benchmark: Benchmark, items: Sequence[Item]) -> float:
    """Expected score of drawing each answer at random, between 0 and 1, over units as `benchmark.units` counts them.

    In circular evaluation all rotations have to be guessed, so that four options give 0.25 ** 4; a pair of MME's
    yes/no questions gives (0.5 + 0.25) / 2.
    """
    units: dict[str, list[float]] = {}
    for item in items:
        units.setdefault(item.circle or item.id, []).append(guess(benchmark, item))
    if benchmark.units == "each":
        scores = [score for unit in units.values() for score in unit]
    elif benchmark.units == "all":
        scores = [prod(unit) for unit in units.values()]
    else:
        scores = [(sum(unit) / len(unit) + prod(unit)) / 2 for unit in units.values()]
    return sum(scores) / len(scores)
