"""Test questions in the benchmarks' layouts, read back by the benchmarks' own readers."""

from collections import Counter

import pytest

from tamp_lightning.benchmarks.base import update
from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.testbeds import easy_vqa_layouts, skill_layouts
from tamp_lightning.testbeds.skill_layouts import WRITERS, write


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(skill_layouts, "PICTURES", (4, 6))


@pytest.mark.parametrize("name", WRITERS)
def test_the_benchmarks_own_reader_takes_it(name, tmp_path):
    source = write(name, tmp_path)
    items = BENCHMARKS[name].read(source)
    assert len(items) > 6
    assert not items.bad
    assert write(name, tmp_path) == source  # nothing is written twice
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_mme_has_one_yes_and_one_no_for_every_picture(tmp_path):
    items = BENCHMARKS["mme"].read(write("mme", tmp_path)).items
    for circle in {i.circle for i in items}:
        assert sorted(str(i.target) for i in items if i.circle == circle) == ["no", "yes"]
    assert {i.groups["category"] for i in items} == {"existence"}


def test_easy_vqa_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(skill_layouts, "EASY_ALONE", 5)
    items = BENCHMARKS["mme"].read(easy_vqa_layouts.write("mme", tmp_path)).items
    assert {i.groups["category"] for i in items} == {"existence"}
    assert len(items) % 2 == 0 < len(items)


def test_every_rotation_of_mmbench_is_there(tmp_path):
    items = BENCHMARKS["mmbench"].read(write("mmbench", tmp_path)).items
    for circle in {i.circle for i in items}:
        own = [i for i in items if i.circle == circle]
        assert Counter(i.target for i in own) == {0: 1, 1: 1, 2: 1, 3: 1}
        assert len({i.options[i.target] for i in own}) == 1


def test_other_benchmarks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="which is written as pope, vqav2, mme, mmbench only"):
        write("gqa", tmp_path)


def test_mmes_own_metric_takes_its_category(tmp_path):
    benchmark = BENCHMARKS["mme"]
    items = benchmark.read(write("mme", tmp_path)).items
    metric = benchmark.metric(items)
    update(metric, list(range(len(items))), [str(i.target).capitalize() for i in items], items)
    assert float(metric.compute()["perception"]) == 200
