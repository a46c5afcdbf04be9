"""Test clips in VideoMME's layout, read back by VideoMME's own reader."""

import pytest

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.testbeds import clip_layouts
from tamp_lightning.testbeds.clips import make_clip, questions

pytest.importorskip("av")


@pytest.fixture(autouse=True)
def few(monkeypatch, tmp_path):
    monkeypatch.setenv("TAMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(clip_layouts, "DESIGN", 4)


def test_the_benchmarks_own_reader_takes_it(tmp_path):
    source = clip_layouts.write("videomme", tmp_path)
    items = BENCHMARKS["videomme"].read(source).items
    asked = [q for number in range(4) for q in questions(make_clip("test", number))]
    assert [i.question for i in items] == [q.text for q in asked]
    assert [i.options[i.target] for i in items] == [q.answer for q in asked]
    assert [i.groups["duration"] for i in items] == [q.clip.length for q in asked]
    assert clip_layouts.write("videomme", tmp_path) == source


def test_another_benchmark_is_refused(tmp_path):
    with pytest.raises(ValueError, match="written as videomme only"):
        clip_layouts.write("mvbench", tmp_path)
