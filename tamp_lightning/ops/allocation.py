"""How many weights every linear keeps, under one exact budget for all of them (TAMP section 3.2)."""

import math
from collections.abc import Mapping

from tamp_lightning.errors import InputError

SLACK = 1e-6
"""Weights: absorbs float error in products such as size * (1 - 0.7) before rounding up or down."""

HIGHEST_LEVEL = 1e300
"""Bound of the bisection, so that a score next to nothing does not make it infinite."""

Counts = dict[str, int]


def allocate(
    scores: Mapping[str, float],
    sizes: Mapping[str, int],
    *,
    sparsity: float,
    cap: float | None = None,
    floor: float = 0.0,
    size_weighted: bool = False,
) -> Counts:
    """Kept weights per linear, in proportion to its score above what the cap guarantees (TAMP, ECoFLaP).

    Every linear first gets the size * (1 - cap) weights it may not lose. The rest of the budget is shared in
    proportion to the scores, where a linear that is full passes its share on. Shares do not depend on size,
    so small linears end up denser; `size_weighted` shares by score * size instead.

    Args:
        scores: importance of each linear, >= 0; only ratios matter.
        sizes: number of weights of each linear.
        sparsity: fraction of all weights to remove, 0 <= sparsity < 1.
        cap: largest sparsity of a linear, from sparsity to 1; None is 1.
        floor: smallest sparsity of a linear, from 0 to sparsity.
        size_weighted: multiply scores by size.

    Returns:
        Kept weights of each linear, in the order of sizes, summing to round(total * (1 - sparsity)). Where
        whole weights cannot meet cap or floor (next to sparsity), some linears miss it by one weight.

    Raises:
        ValueError: an impossible argument; the message names it, what is allowed and what to do.
    """
    cap = 1.0 if cap is None else cap
    _check(scores, sizes, sparsity, cap, floor)
    _check_scores(scores)
    top = max(scores.values())
    rate = {k: scores[k] / top * (n if size_weighted else 1) for k, n in sizes.items()}
    lower, upper = _limits(sizes, cap, floor)
    budget = _budget(sizes, sparsity)
    share = _level(lower, rate, lower, upper, budget)
    if budget - sum(share.values()) > 0.5:
        # all scored linears are full: those of score 0 take the rest, in proportion to their room
        share = _level(share, {k: upper[k] - share[k] for k in sizes}, lower, upper, budget)
    return _round(share, budget)


def to_counts(
    sparsity: Mapping[str, float],
    sizes: Mapping[str, int],
    *,
    total_sparsity: float,
    cap: float | None = None,
    floor: float = 0.0,
) -> Counts:
    """Kept weights per linear for a rule that gives ratios (OWL, DLP, uniform), with the budget met exactly.

    All ratios are shifted by one common amount, clamped to [floor, cap], then rounded by largest remainder.

    Args:
        sparsity: wanted sparsity of each linear; values outside [floor, cap] are clamped after the shift.
        sizes: number of weights of each linear.
        total_sparsity: fraction of all weights to remove, 0 <= total_sparsity < 1.
        cap: largest sparsity of a linear, from total_sparsity to 1; None is 1.
        floor: smallest sparsity of a linear, from 0 to total_sparsity.

    Returns:
        Kept weights of each linear, in the order of sizes, summing to round(total * (1 - total_sparsity)).

    Raises:
        ValueError: an impossible argument; the message names it, what is allowed and what to do.

    Examples:
        >>> to_counts({"q": 0.25, "up": 0.5}, {"q": 4, "up": 8}, total_sparsity=0.5)
        {'q': 3, 'up': 3}
    """
    cap = 1.0 if cap is None else cap
    _check(sparsity, sizes, total_sparsity, cap, floor)
    for name, ratio in sparsity.items():
        if not math.isfinite(ratio):
            raise InputError(f"the sparsity of {name} is {ratio}; it has to be a finite number.")
    lower, upper = _limits(sizes, cap, floor)
    budget = _budget(sizes, total_sparsity)
    start = {k: n * (1 - sparsity[k]) for k, n in sizes.items()}
    return _round(_level(start, sizes, lower, upper, budget), budget)


def _budget(sizes: Mapping[str, int], sparsity: float) -> int:
    return round(sum(sizes.values()) * (1 - sparsity))


def _limits(sizes: Mapping[str, int], cap: float, floor: float) -> tuple[Counts, Counts]:
    """Fewest and most weights that each linear may keep."""
    lower = {k: math.ceil(n * (1 - cap) - SLACK) for k, n in sizes.items()}
    upper = {k: max(lower[k], math.floor(n * (1 - floor) + SLACK)) for k, n in sizes.items()}
    return lower, upper


def _level(
    start: Mapping[str, float], rate: Mapping[str, float], lower: Counts, upper: Counts, budget: int
) -> dict[str, float]:
    """start + rate * level, clamped, at the one level whose total is the budget or comes nearest to it.

    The total grows with the level, so bisection down to neighbouring floats finds it.
    """

    def at(level: float) -> dict[str, float]:
        return {k: min(max(start[k] + rate[k] * level, lower[k]), upper[k]) for k in lower}

    rising = [k for k in lower if rate[k] > 0]
    low = min(((lower[k] - start[k]) / rate[k] for k in rising), default=0.0)
    high = min(max(((upper[k] - start[k]) / rate[k] for k in rising), default=0.0), HIGHEST_LEVEL)
    if sum(at(high).values()) <= budget:
        return at(high)
    while low < (middle := (low + high) / 2) < high:
        if sum(at(middle).values()) <= budget:
            low = middle
        else:
            high = middle
    return at(low)


def _round(share: Mapping[str, float], budget: int) -> Counts:
    """Whole weights summing to the budget, by largest remainder; ties: the larger share, then the name."""
    counts = {k: math.floor(real + SLACK) for k, real in share.items()}
    missing = budget - sum(counts.values())
    order = sorted(share, key=lambda k: (counts[k] - share[k], -counts[k], k))
    # negative only where cap is next to sparsity: rounded up, the guaranteed weights alone exceed the budget
    for name in order[: abs(missing)]:
        counts[name] += 1 if missing > 0 else -1
    return counts


def _check(
    per_linear: Mapping[str, float], sizes: Mapping[str, int], sparsity: float, cap: float, floor: float
) -> None:
    if not sizes:
        raise InputError("there is no linear to prune; check the filter that selects them.")
    if different := sorted(per_linear.keys() ^ sizes.keys()):
        raise ValueError(f"scores and sizes name different linears, such as {different[0]}.")
    if small := [k for k, n in sizes.items() if n < 1]:
        raise ValueError(f"{small[0]} has {sizes[small[0]]} weights; every linear needs one.")
    if not 0 <= sparsity < 1:
        raise InputError(f"sparsity is {sparsity}; it has to be at least 0 and below 1, such as 0.5.")
    if not sparsity <= cap <= 1:
        raise InputError(f"cap is {cap}; it has to be from the sparsity, {sparsity}, to 1: raise it.")
    if not 0 <= floor <= sparsity:
        raise InputError(f"floor is {floor}; it has to be from 0 to the sparsity, {sparsity}: lower it.")


def _check_scores(scores: Mapping[str, float]) -> None:
    for name, score in scores.items():
        if not (math.isfinite(score) and score >= 0):
            raise InputError(f"the score of {name} is {score}; scores have to be finite and at least 0.")
    if not any(scores.values()):
        raise InputError("all scores are 0; one has to be positive, or use allocation: uniform.")
