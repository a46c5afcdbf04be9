"""Questions of a public benchmark as a task."""

from dataclasses import replace

import pytest

from tamp_lightning.benchmarks.chance import chance_level
from tamp_lightning.evaluation.items import spread

from ..fixtures.layouts import prepared, read


@pytest.mark.parametrize(
    ("layout", "level"),
    [("pope hub", 0.5), ("mmbench hub", (0.25**4 + 0.5**2) / 2), ("mme hub", 0.375), ("textvqa hub", 0.0)],
)
def test_chance_levels(layout, level, tmp_path):
    benchmark, source = prepared(layout, tmp_path)
    assert chance_level(benchmark, benchmark.read(source).items) == pytest.approx(level)


def test_a_limit_spreads_over_the_data_and_tears_no_question_apart(tmp_path):
    items = read("mmbench hub", tmp_path)
    one = spread(items, 1)
    assert [len(one), len({item.circle for item in one.items}), len(one.places)] == [4, 1, 4]
    assert spread(items, None) is spread(items, 9) is items
    many = replace(items, items=[replace(items.items[0], id=str(k), circle="") for k in range(10)], places=["p"] * 10)
    assert [item.id for item in spread(many, 4).items] == ["0", "2", "5", "7"]
