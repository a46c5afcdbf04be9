"""MMBench: options, letters, rotations."""

from dataclasses import replace

import pytest

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.readers.item import Source

from ...fixtures import layouts, media
from ...fixtures.layouts import prepared, read
from .test_item import edit_tsv


def test_an_option_that_says_nan_stays_in_a_tsv_and_as_the_answer_on_the_hub(tmp_path):
    benchmark, source = prepared("mmbench tsv", tmp_path)
    edit_tsv(tmp_path / "MMBench_DEV_EN.tsv", lambda rows: rows[5].__setitem__(5, "nan"))
    assert benchmark.read(source).items[4].options == ("blue", "grey", "nan")
    rows = layouts.mmbench_rows(media.cell)[4:5]
    rows[0] |= {"B": "nan", "answer": "B"}
    path = layouts.write_parquet(tmp_path / "dev-0.parquet", rows)
    item = BENCHMARKS["mmbench"].read(Source(path=str(path))).items[0]
    assert (item.options, item.target) == (("blue", "nan"), 1)


def test_letters_are_those_of_the_columns(tmp_path):
    benchmark, source = prepared("mmbench tsv", tmp_path)

    def change(rows):
        del rows[2:5]  # its rotations
        rows[1][3:7], rows[1][7] = ["", "red", "", "blue"], "D"

    edit_tsv(tmp_path / "MMBench_DEV_EN.tsv", change)
    item = benchmark.read(source).items[0]
    assert (item.options, item.target) == (("", "red", "", "blue"), 3)
    assert "options:\nB. red\nD. blue\n" in benchmark.prompt(item)
    assert list(benchmark.candidates(item)) == ["B", "D"]
    assert benchmark.candidates(item)[benchmark.answer_index(item)] == "D"


@pytest.mark.parametrize("harm", ["answer", "fields"])
def test_a_question_that_lost_a_rotation_leaves_as_a_whole(harm, tmp_path):
    benchmark, source = prepared("mmbench tsv", tmp_path)

    def change(rows):
        rows[2].pop() if harm == "fields" else rows[2].__setitem__(7, "Q")

    edit_tsv(tmp_path / "MMBench_DEV_EN.tsv", change)
    items = benchmark.read(replace(source, skip_bad=True))
    assert [item.circle for item in items.items] == ["8", "8"]
    assert sorted(bad.place for bad in items.bad) == [f"MMBench_DEV_EN.tsv row {n}" for n in (2, 3, 4, 5)]
    assert [bad.reason for bad in items.bad].count("another rotation of question 7 is bad") == 3


def test_rotations_share_a_circle_and_their_picture(tmp_path):
    items = read("mmbench tsv", tmp_path).items
    assert [item.circle for item in items] == ["7"] * 4 + ["8"] * 2
    assert [item.target for item in items] == [0, 3, 2, 1, 0, 1]
    assert items[0].hint == "Look."
    assert items[1].hint == ""
    assert len({item.media[0].content() for item in items[:4]}) == 1
    assert len({item.media[0].content() for item in items}) == 2
