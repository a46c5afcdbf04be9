"""Student's t against tables."""

import statistics

import pytest

from tamp_lightning.metrics.student import central_mass, critical_value, two_sided_p

TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 30: 2.042, 120: 1.980, 5000: 1.9604}


@pytest.mark.parametrize(("df", "expected"), TABLE.items())
def test_critical_values(df, expected):
    assert critical_value(df) == pytest.approx(expected, abs=6e-4)
    assert central_mass(critical_value(df), df) == pytest.approx(0.95, abs=1e-9)


def test_p_values():
    assert two_sided_p(0.0, 7) == 1
    assert two_sided_p(-1.0, 1) == pytest.approx(0.5)
    normal = 2 * statistics.NormalDist().cdf(-2.0)
    assert two_sided_p(2.0, 100_000) == pytest.approx(normal, abs=1e-5)
