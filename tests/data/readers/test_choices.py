"""ScienceQA, MMMU and MuirBench."""

import pytest

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.readers.item import Source

from ...fixtures import layouts, media
from ...fixtures.layouts import read

OPEN = {"[Ar]4s2": ("[Ar]4s2",), "['5', 'five']": ("5", "five"), "[3": ("[3",), "5": ("5",)}


@pytest.mark.parametrize("answer", OPEN)
def test_open_answers_of_mmmu_that_look_like_a_list(answer, tmp_path):
    row = {"id": "validation_Art_1", "question": "<image 1>?", "options": "[]", "answer": answer}
    row |= {"question_type": "open", "image_1": media.cell()}
    path = layouts.write_parquet(tmp_path / "validation-0.parquet", [row])
    assert BENCHMARKS["mmmu"].read(Source(path=str(path))).items[0].target == OPEN[answer]


def test_pictures_of_mmmu_are_those_named_in_order(tmp_path):
    first, second = read("mmmu hub", tmp_path).items
    assert [len(first.media), len(second.media)] == [2, 1]
    assert first.media[0].content() != first.media[1].content()
    assert second.target == ("5",)
