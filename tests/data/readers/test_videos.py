"""Videos, their parts and their subtitles."""

from dataclasses import replace

import pytest

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.media import read_subtitles
from tamp_lightning.evaluation.items import questions_digest

from ...fixtures.layouts import prepared, read
from .test_item import edit_json


def test_videos_may_end_in_capitals(tmp_path):
    for layout in ("videomme", "mvbench", "nextqa csv"):
        benchmark, source = prepared(layout, tmp_path / layout)
        for path in (tmp_path / layout).rglob("*.mp4"):
            path.rename(path.with_suffix(".MP4"))
        assert benchmark.read(source).items[0].media[0].content.suffix == ".MP4"


def test_mvbench_has_some_videos_in_a_folder_of_their_own(tmp_path):
    benchmark, source = prepared("mvbench", tmp_path)
    inner = tmp_path / "video" / "data0613" / "star"
    inner.parent.mkdir()
    (tmp_path / "video" / "star").rename(inner)
    item = benchmark.read(source).items[1]
    assert item.media[0].content == inner / "Charades_v1_480" / "v.mp4"
    assert (item.media[0].start, item.media[0].end) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("answer", "candidates", "target"),
    [("House ", ["Car", "House "], 1), ("House", ["House ", "Car"], 0), (" House", ["House", " House"], 1)],
)
def test_answer_and_candidates_of_mvbench_are_compared_alike(answer, candidates, target, tmp_path):
    benchmark, source = prepared("mvbench", tmp_path)
    edit_json(tmp_path / "json" / "action_count.json", lambda c: c[0].update(answer=answer, candidates=candidates))
    item = benchmark.read(source).items[0]
    assert (item.target, item.options) == (target, tuple(candidates))


def test_rows_may_share_the_id_of_their_video(tmp_path):
    benchmark, source = prepared("music_avqa json", tmp_path)
    edit_json(tmp_path / "avqa_test.json", lambda rows: [row.update(id="00000093") for row in rows])
    assert [item.id for item in benchmark.read(source).items] == ["00000093", "00000093/2"]
    assert len(benchmark.read(replace(source, skip_bad=True))) == 2


MARKUP = {
    '<font color="white" size=".72c">It is red</font>': "It is red",
    '<FONT COLOR="white">It <i>is</i>\n<b>red</b></FONT>': "It is red",
    "{\\an8}It is red": "It is red",
    "It is < 3 and > 1, {so} <they> say": "It is < 3 and > 1, {so} <they> say",
}


@pytest.mark.parametrize("text", MARKUP)
def test_markup_of_subtitles_is_taken_off(text, tmp_path):
    path = tmp_path / "a.srt"
    path.write_bytes(f"\ufeff1\r\n00:00:00,000 --> 00:00:01,500\r\n{text}\r\n".encode())
    assert [tuple(line) for line in read_subtitles(path)] == [(0.0, 1.5, MARKUP[text])]


@pytest.mark.parametrize("place", ["videos' own folder", "beside the parquet"])
def test_subtitles_are_found_where_they_are_unpacked(place, tmp_path):
    benchmark, source = prepared("videomme subtitles", tmp_path)
    if place == "videos' own folder":
        source = replace(source, media=str(tmp_path / "data"))
    else:
        (tmp_path / "data").rename(tmp_path / "films")
        source = replace(source, media=str(tmp_path / "films"), path=str(tmp_path / "videomme"))
    items = benchmark.read(source)
    assert [item.subtitles is not None for item in items.items] == [True] * 2 + [False] * 4
    assert items.notes == ("2 of 3 videos have no subtitles and are asked about without",)
    assert benchmark.read(replace(source, limit=1)).notes == items.notes


def test_without_any_subtitles_the_benchmark_is_refused(tmp_path):
    benchmark, source = prepared("videomme subtitles", tmp_path)
    (tmp_path / "subtitle" / "clip0.srt").unlink()
    with pytest.raises(ValueError, match=r"none of 3 videos has a file <videoID>\.srt in .*: unpack subtitle\.zip"):
        benchmark.read(source)
    assert len(BENCHMARKS["videomme"].read(source)) == 6


def test_subtitles_belong_to_the_key_of_kept_scores(tmp_path):
    benchmark, source = prepared("videomme subtitles", tmp_path)
    path, plain = tmp_path / "subtitle" / "clip0.srt", BENCHMARKS["videomme"]
    before = questions_digest(benchmark, benchmark.read(source)), questions_digest(plain, plain.read(source))
    assert questions_digest(benchmark, benchmark.read(source)) == before[0]
    path.write_text(path.read_text().replace("red", "blue"))
    assert questions_digest(benchmark, benchmark.read(source)) != before[0]
    assert questions_digest(plain, plain.read(source)) == before[1]


def test_parts_of_videos_and_folders_of_frames(tmp_path):
    whole, part, frames = (item.media[0] for item in read("mvbench", tmp_path).items)
    assert (whole.start, whole.end) == (None, None)
    assert (part.start, part.end) == (1.0, 2.0)
    assert frames.content.is_dir()


def test_subtitles_only_where_there_are_some(tmp_path):
    items = read("videomme subtitles", tmp_path).items
    assert [item.subtitles is not None for item in items] == [True, True, False, False, False, False]
