"""Files as people write them down: marks, empty lines, encodings."""

from dataclasses import replace

import pytest

from tamp_lightning.data.readers.item import BadRow

from ...fixtures.layouts import prepared, summary
from .test_item import edit_tsv


def prepend(mark):
    return lambda content: mark + content


WRITTEN = {
    "byte order mark": prepend(b"\xef\xbb\xbf"),
    "empty line at the end": lambda content: content + b"\n",
    "two of them, with spaces": lambda content: content + b"\n  \n",
    "empty line at the start": prepend(b"\n"),
    "windows": lambda content: content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
}


FILES = {
    "mmbench tsv": "MMBench_DEV_EN.tsv",
    "nextqa csv": "val.csv",
    "pope jsonl": "coco_pope_random.json",
    "vocalsound jsonl": "test.jsonl",
    "textvqa json": "TextVQA_0.5.1_val.json",
    "gqa json": "testdev_balanced_questions.json",
    "vqav2 official": "mscoco_val2014_annotations.json",
    "mme folder": "color/0001.txt",
    "scienceqa folder": "problems.json",
}


@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.parametrize("layout", FILES)
def test_it_does_not_matter_how_a_file_is_written_down(layout, how, tmp_path):
    benchmark, source = prepared(layout, tmp_path)
    plain = summary(benchmark.read(source))
    path = tmp_path / FILES[layout]
    path.write_bytes(WRITTEN[how](path.read_bytes()))
    items = benchmark.read(source)
    assert summary(items) == plain
    assert not items.bad


def test_a_row_of_a_table_with_empty_fields_alone_is_no_row(tmp_path):
    benchmark, source = prepared("mmbench tsv", tmp_path)
    edit_tsv(tmp_path / "MMBench_DEV_EN.tsv", lambda rows: rows.insert(3, [""] * 11))
    assert len(benchmark.read(source)) == 6


def test_line_separators_within_a_text_do_not_end_its_line(tmp_path):
    benchmark, source = prepared("pope jsonl", tmp_path)
    path, text = tmp_path / "coco_pope_random.json", "Is\u2028it\u0085red?"
    path.write_text(path.read_text().replace("Is it red?", text), encoding="utf-8")
    assert text in [item.question for item in benchmark.read(source).items]


def test_another_encoding_is_refused_with_the_files_name(tmp_path):
    benchmark, source = prepared("mme folder", tmp_path)
    (tmp_path / "color" / "0001.txt").write_bytes("Is it a caf\u00e9?\tYes\nIs it blue?\tNo\n".encode("latin-1"))
    with pytest.raises(BadRow, match=r"color/0001\.txt is not in UTF-8 \(byte 0xe9 at 11\): save it in UTF-8") as error:
        benchmark.read(source)
    assert "\n" not in str(error.value)
    assert len(benchmark.read(replace(source, skip_bad=True))) == 2
