"""Every public layout, read from files of our own."""

import pytest

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.readers.item import Source

from ...fixtures.layouts import LAYOUTS, read

EXPECTED = {
    "mmbench tsv": (6, "7", 0, ("red", "green", "blue", "grey"), {"category": "colour", "l2_category": "perception"}),
    "mmbench hub": (6, "7", 0, ("red", "green", "blue", "grey"), {"category": "colour", "l2_category": "perception"}),
    "pope jsonl": (6, "adversarial/1", "yes", (), {"category": "adversarial"}),
    "pope hub": (2, "popular/0", "yes", (), {"category": "popular"}),
    "mme folder": (4, "celebrity/0001.jpg/1", "yes", (), {"category": "celebrity"}),
    "mme hub": (2, "color/color/0001.jpg/1", "yes", (), {"category": "color"}),
    "textvqa json": (2, "0", ("red",) * 10, (), {"answer_type": "other"}),
    "textvqa hub": (2, "0", ("red",) * 10, (), {"answer_type": "other"}),
    "vizwiz json": (2, "VizWiz_val_00000000.jpg", ("red",) * 10, (), {}),
    "vizwiz hub": (2, "0", ("red",) * 10, (), {"answer_type": "other"}),
    "vqav2 official": (2, "0", ("red",) * 10, (), {"answer_type": "other", "question_type": "what"}),
    "vqav2 hub": (2, "0", ("red",) * 10, (), {"answer_type": "other"}),
    "ok_vqa official": (2, "0", ("red",) * 10, (), {"answer_type": "other", "question_type": "what"}),
    "ok_vqa hub": (2, "0", ("red",) * 10, (), {"answer_type": "other"}),
    "gqa json": (2, "20", "red", (), {}),
    "scienceqa folder": (2, "0", 0, ("red", "green", "blue"), {"subject": "natural science", "grade": "grade2"}),
    "scienceqa hub": (2, "0", 0, ("red", "green", "blue"), {"subject": "natural science", "grade": "grade2"}),
    "mmmu hub": (2, "validation_Art_1", 1, ("red", "blue"), {"subject": "Art"}),
    "muirbench hub": (
        2, "1", 1, ("the first", "the second"),
        {"task": "Counting", "image_relation": "Partial", "image_type": "Photo"},
    ),
    "videomme": (
        6, "000-1", 0, ("red.", "green.", "blue.", "grey."),
        {"duration": "short", "domain": "Knowledge", "sub_category": "History", "task_type": "Counting Problem"},
    ),
    "mvbench": (3, "action_count/0", 1, ("red", "green", "blue"), {"task": "action_count"}),
    "egoschema": (1, "0", 4, ("red", "green", "blue", "grey", "none"), {}),
    "nextqa csv": (1, "4010069381/6", 1, ("red", "green", "blue", "grey", "none"), {"type": "CW"}),
    "perceptiontest": (
        1, "video_1/3", 0, ("red", "green", "blue"), {"area": "physics", "reasoning": "descriptive"},
    ),
    "music_avqa json": (2, "0", "two", (), {}),
    "clothoaqa json": (2, "0", "yes", (), {"kind": "yes_no"}),
    "clothoaqa hub": (1, "0", "yes", (), {"kind": "yes_no"}),
    "vocalsound jsonl": (2, "0", "Laughter", (), {"label": "Laughter"}),
    "tut2017 jsonl": (2, "0", "beach", (), {"label": "beach"}),
}  # fmt: skip
EXPECTED["videomme subtitles"] = EXPECTED["videomme"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_first_question_of_every_layout(layout, tmp_path):
    items = read(layout, tmp_path)
    first = items.items[0]
    found = (len(items), first.id, first.target, first.options, dict(first.groups))
    assert found == EXPECTED[layout]
    assert not items.bad
    assert len({item.id for item in items.items}) == len(items)
    assert all(item.media for item in items.items)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reading_twice_gives_the_same_checksum(layout, tmp_path):
    first = read(layout, tmp_path)
    assert BENCHMARKS[LAYOUTS[layout][0]].read(LAYOUTS[layout][1](tmp_path)).sha256 == first.sha256
    assert len(first.sha256) == 64


def test_another_answer_gives_another_checksum(tmp_path):
    source = LAYOUTS["pope jsonl"][1](tmp_path)
    before = BENCHMARKS["pope"].read(source).sha256
    path = tmp_path / "coco_pope_random.json"
    path.write_text(path.read_text().replace("yes", "no"))
    assert BENCHMARKS["pope"].read(source).sha256 != before


@pytest.mark.parametrize(("limit", "rows"), [(1, 4), (2, 6), (99, 6)])
def test_limit_counts_questions_not_rotations(tmp_path, limit, rows):
    path = LAYOUTS["mmbench tsv"][1](tmp_path).path
    assert len(BENCHMARKS["mmbench"].read(Source(path=path, limit=limit))) == rows


def test_media_are_read_when_needed_not_before(tmp_path):
    source = LAYOUTS["pope jsonl"][1](tmp_path)
    items = BENCHMARKS["pope"].read(source)
    (tmp_path / "val2014" / "COCO_val2014_000000000000.jpg").write_bytes(b"replaced")
    assert items.items[0].media[0].content.read_bytes() == b"replaced"
