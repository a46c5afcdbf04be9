"""Sparsities that lean from one target by how scores differ: equal scores give the same sparsity everywhere."""

import math
from collections.abc import Mapping
from typing import Literal

from tamp_lightning.errors import InputError
from tamp_lightning.ops.names import place_of

Within = Literal["all", "kind", "block"]
"""What a linear's score is compared with: every linear's, those of its kind in other blocks, or, its block's mean, the
means of other blocks."""

ROUNDING = 1e-9
"""Differences of scores below this share of the largest are rounding."""


def tilted_sparsity(
    scores: Mapping[str, float],
    sizes: Mapping[str, int],
    width: float,
    within: Within = "kind",
    *,
    level: bool = False,
) -> dict[str, float]:
    """How far each linear's sparsity lies from the target: -width at the highest score above its group's mean, up to
    width at the lowest.

    The deviation of a score from its group's mean, weighted by size, over the largest deviation of any linear, times
    -width. Size-weighted, these sum to 0 in every group, so that the budget is met without a shift of all, and no
    linear gains or loses by being small, as it does where a budget is shared in proportion to scores alone.

    Args:
        scores: of each linear, finite; higher keeps more. Only differences matter, and only up to a factor.
        sizes: number of weights of each linear.
        width: largest distance from the target; below 0, higher scores keep less.
        within: the groups.
        level: take what the linears of a block have in common off their deviations, so that they sum to 0 in every
            block instead of every group.

    Returns:
        Distances in the order of sizes, size-weighted mean 0.

    Raises:
        InputError: a score is not finite.

    Examples:
        >>> tilted_sparsity({"a.0.q": 1.0, "a.1.q": 3.0}, {"a.0.q": 4, "a.1.q": 4}, 0.05)
        {'a.0.q': 0.05, 'a.1.q': -0.05}
    """
    for name in sizes:
        if not math.isfinite(scores[name]):
            raise InputError(f"the score of {name} is {scores[name]}; it has to be a finite number.")
    if within == "block":
        scores = _means(scores, sizes, "block")
    centre = _means(scores, sizes, "kind" if within == "kind" else "all")
    lean = {name: centre[name] - scores[name] for name in sizes}
    if level:
        common = _means(lean, sizes, "block")
        lean = {name: lean[name] - common[name] for name in sizes}
    largest = max(map(abs, lean.values()), default=0.0)
    if largest <= ROUNDING * max(map(abs, scores.values()), default=0.0):
        largest = 0.0  # what means differ by from equal scores
    return {name: width * value / largest if largest else 0.0 for name, value in lean.items()}


def _means(scores: Mapping[str, float], sizes: Mapping[str, int], within: Within) -> dict[str, float]:
    """Size-weighted mean score of each linear's group."""
    groups = {name: _group(name, within) for name in sizes}
    total, weight = dict.fromkeys(groups.values(), 0.0), dict.fromkeys(groups.values(), 0)
    for name, group in groups.items():
        total[group] += sizes[name] * scores[name]
        weight[group] += sizes[name]
    return {name: total[group] / weight[group] for name, group in groups.items()}


def _group(name: str, within: Within) -> int | str:
    """Number of its block or its kind; the same for all linears where all are compared."""
    block, kind = place_of(name)
    return "" if within == "all" else kind if within == "kind" else block
