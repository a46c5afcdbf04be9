"""Samples drawn of a source."""

import random

import pytest

from tamp_lightning.data.calibration import Sample
from tamp_lightning.data.draw import Pool, choose


def test_positions_are_those_of_random_in_order():
    assert choose(100, 7, 3, "it") == sorted(random.Random(3).sample(range(100), 7))
    assert choose(5, 5, 0, "it") == [0, 1, 2, 3, 4]
    assert choose(100, 7, 3, "it") != choose(100, 7, 4, "it")


@pytest.mark.parametrize("count", [-1, 0, 6])
def test_too_many_or_none_are_refused(count):
    with pytest.raises(ValueError, match=f"{count} calibration samples wanted, shells has 5: ask for 1 to 5"):
        choose(5, count, 0, "shells")


def test_a_pool_makes_only_what_is_drawn_and_read():
    made = []

    def make(position):
        made.append(position)
        return Sample(position, [], [])

    samples = Pool("shells", 50, make).draw(4, 1)
    assert (len(samples), made) == (4, [])
    wanted = choose(50, 4, 1, "shells")
    assert samples[2].id == wanted[2]
    assert made == [wanted[2]]
