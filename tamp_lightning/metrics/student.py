"""Student's t distribution with a whole number of degrees of freedom (scipy is not a dependency)."""

import math
from functools import lru_cache


def central_mass(t: float, df: int) -> float:
    """P(|T| < t) for t >= 0 and ``df >= 1`` degrees of freedom.

    The finite series of Abramowitz & Stegun 26.7.3 and 26.7.4: exact up to rounding, `df` / 2 terms.
    """
    angle = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = df % 2 == 1
    term = cosine if odd else 1.0
    total = 0.0 if df == 1 else term
    for k in range(3 if odd else 2, df - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def two_sided_p(t: float, df: int) -> float:
    """P(|T| >= |t|)."""
    return max(0.0, 1.0 - central_mass(abs(t), df))


@lru_cache
def critical_value(df: int, level: float = 0.95) -> float:
    """The t >= 0 with P(|T| < t) = `level`; 12.7 for one degree of freedom, 1.96 for many."""
    low, high = 0.0, 1.0
    while central_mass(high, df) < level:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if central_mass(middle, df) < level else (low, middle)
    return high
