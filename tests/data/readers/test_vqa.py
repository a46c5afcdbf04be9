"""Free answers: pictures and answers as people have them."""

import pytest

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.readers.item import BadRow, Source

from ...fixtures import layouts
from ...fixtures.layouts import prepared
from .test_item import edit_json


def test_the_message_names_the_folder_that_is_at_fault(tmp_path):
    for name in ("val.json", "train.json"):
        layouts.write_json(tmp_path / name, [])
    with pytest.raises(FileNotFoundError, match=r"holds 2 files, train\.json, val\.json: give the one to read as path"):
        BENCHMARKS["vizwiz"].read(Source(path=str(tmp_path)))
    (tmp_path / "inner").mkdir()
    with pytest.raises(FileNotFoundError, match=r"inner holds no \.json or \.parquet file"):
        BENCHMARKS["vizwiz"].read(Source(path=str(tmp_path / "inner")))


@pytest.mark.parametrize("ending", [".JPG", ".jpeg", ".png"])
def test_pictures_may_have_another_ending(ending, tmp_path):
    for layout in ("textvqa json", "gqa json", "vqav2 official"):
        benchmark, source = prepared(layout, tmp_path / layout)
        for path in (tmp_path / layout).rglob("*.jpg"):
            path.rename(path.with_suffix(ending))
        assert benchmark.read(source).items[0].media[0].content.suffix == ending


def test_one_answer_cannot_be_compared(tmp_path):
    benchmark, source = prepared("textvqa json", tmp_path)
    edit_json(tmp_path / "TextVQA_0.5.1_val.json", lambda c: c["data"][1].__setitem__("answers", ["red"]))
    with pytest.raises(BadRow, match="answers has one entry: VQA accuracy compares people with one another"):
        benchmark.read(source)
