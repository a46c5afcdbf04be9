"""Benchmark files as people have them: marks, empty lines, extra files, other spellings; each with its right value."""

from dataclasses import replace

import pytest

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.media import read_subtitles
from tamp_lightning.data.readers.fields import number, optional
from tamp_lightning.data.readers.item import BadRow, Source
from tamp_lightning.evaluation.items import questions_digest

from ...fixtures import layouts, media
from ...fixtures.layouts import LAYOUTS
from .test_item import edit_json, edit_tsv


def prepared(layout, folder):
    name, write = LAYOUTS[layout]
    if layout in ("mvbench", "videomme", "videomme subtitles", "nextqa csv", "music_avqa json"):
        pytest.importorskip("av")
    return BENCHMARKS[name], write(folder)


def summary(items):
    return [(i.id, i.question, i.target, i.options, dict(i.groups), i.hint) for i in items.items]


# ---- how a file is written down


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


def test_outer_spaces_of_a_question_stay(tmp_path):
    """lmms-eval puts doc["question"] into the prompt as it is."""
    benchmark, source = prepared("textvqa json", tmp_path)
    edit_json(tmp_path / "TextVQA_0.5.1_val.json", lambda c: c["data"][0].__setitem__("question", " what is it? "))
    assert benchmark.prompt(benchmark.read(source).items[0]).startswith(" what is it? \n")


def test_text_that_says_nan_is_text():
    assert optional({"a": "nan"}, "a") == "nan"
    assert optional({"a": float("nan")}, "a") == ""
    assert number({"a": 3.0}, "a") == number({"a": "3"}, "a") == 3


# ---- MMBench


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
    assert benchmark.candidates(item)[benchmark.right(item)] == "D"


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


# ---- folders that hold more


def test_the_folder_of_pope_also_holds_files_of_objects(tmp_path):
    benchmark, source = prepared("pope jsonl", tmp_path)
    plain = summary(benchmark.read(source))
    layouts.write_json(tmp_path / "coco_co_occur.json", {"person": ["chair", "cup"]})
    layouts.write_lines(tmp_path / "coco_ground_truth_objects.json", [{"image": "a.jpg", "objects": ["cup"]}])
    assert summary(benchmark.read(source)) == plain
    own = tmp_path / "own" / "mine.json"
    layouts.write_lines(own, [{"question_id": 1, "image": "COCO_val2014_000000000000.jpg", "text": "?", "label": "no"}])
    layouts.write_json(own.parent / "objects.json", {"person": []})
    assert len(benchmark.read(replace(source, path=str(own.parent)))) == 1


def official(folder, prefix, split, answer, *, text_ids=False, annotated=True):
    """One question of a benchmark and split, in the names of its official files."""
    ask = {"image_id": 0, "question": f"{prefix}{split}?", "question_id": "7" if text_ids else 7}
    layouts.write_json(folder / f"{prefix}OpenEnded_mscoco_{split}2014_questions.json", {"questions": [ask]})
    note = {"question_id": 7, "image_id": 0, "answers": [{"answer": answer}] * 10}
    if annotated:
        layouts.write_json(folder / f"{prefix}mscoco_{split}2014_annotations.json", {"annotations": [note]})
    media.save_picture(folder / "val2014" / "COCO_val2014_000000000000.jpg")


@pytest.mark.parametrize("name", ["ok_vqa", "vqav2"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_both_benchmarks_and_both_splits_may_lie_in_one_folder(name, split, tmp_path):
    for prefix in ("", "v2_"):
        for part in ("train", "val"):
            official(tmp_path, prefix, part, f"{prefix}{part}")
    prefix = "v2_" if name == "vqav2" else ""
    items = BENCHMARKS[name].read(Source(path=str(tmp_path), split=split))
    assert [(i.question, i.target[0]) for i in items.items] == [(f"{prefix}{split}?", f"{prefix}{split}")]
    files = (f"{prefix}OpenEnded_mscoco_{split}2014_questions.json", f"{prefix}mscoco_{split}2014_annotations.json")
    assert items.notes == (f"read {files[0]} and {files[1]}",)


def test_what_cannot_be_told_apart_is_refused(tmp_path):
    official(tmp_path, "", "val", "a")
    layouts.write_json(tmp_path / "old_OpenEnded_mscoco_val2014_questions.json", {"questions": []})
    with pytest.raises(ValueError, match=r"several files of questions: Open.*, old_Open.*; keep one, or give a split"):
        BENCHMARKS["ok_vqa"].read(Source(path=str(tmp_path)))
    with pytest.raises(ValueError, match=r"holds no questions of split train, but Open.*give the split|data\.<bench"):
        BENCHMARKS["ok_vqa"].read(Source(path=str(tmp_path), split="train"))
    only = tmp_path / "only"
    official(only, "v2_", "val", "a")
    with pytest.raises(ValueError, match=r"holds VQAv2's questions alone"):
        BENCHMARKS["ok_vqa"].read(Source(path=str(only), split="val2014"))
    official(tmp_path / "half", "", "val", "a", annotated=False)
    with pytest.raises(ValueError, match=r"without its file of annotations"):
        BENCHMARKS["ok_vqa"].read(Source(path=str(tmp_path / "half"), split="val2014"))


def test_ids_meet_as_text_and_as_numbers(tmp_path):
    official(tmp_path, "", "val", "red", text_ids=True)
    items = BENCHMARKS["ok_vqa"].read(Source(path=str(tmp_path)))
    assert [(i.id, i.target[0]) for i in items.items] == [("7", "red")]


def test_the_message_names_the_folder_that_is_at_fault(tmp_path):
    for name in ("val.json", "train.json"):
        layouts.write_json(tmp_path / name, [])
    with pytest.raises(FileNotFoundError, match=r"holds 2 files, train\.json, val\.json: give the one to read as path"):
        BENCHMARKS["vizwiz"].read(Source(path=str(tmp_path)))
    (tmp_path / "inner").mkdir()
    with pytest.raises(FileNotFoundError, match=r"inner holds no \.json or \.parquet file"):
        BENCHMARKS["vizwiz"].read(Source(path=str(tmp_path / "inner")))


# ---- names of media


def test_pictures_of_mme_may_have_any_name(tmp_path):
    benchmark, source = prepared("mme folder", tmp_path)
    for old in (tmp_path / "color").iterdir():
        old.rename(old.with_name(f"a[1] *{old.suffix}"))
    assert [i.circle for i in benchmark.read(source).items][2:] == ["color/a[1] *.jpg"] * 2


@pytest.mark.parametrize("ending", [".JPG", ".jpeg", ".png"])
def test_pictures_may_have_another_ending(ending, tmp_path):
    for layout in ("textvqa json", "gqa json", "vqav2 official"):
        benchmark, source = prepared(layout, tmp_path / layout)
        for path in (tmp_path / layout).rglob("*.jpg"):
            path.rename(path.with_suffix(ending))
        assert benchmark.read(source).items[0].media[0].content.suffix == ending


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


# ---- rows


def test_rows_may_share_the_id_of_their_video(tmp_path):
    benchmark, source = prepared("music_avqa json", tmp_path)
    edit_json(tmp_path / "avqa_test.json", lambda rows: [row.update(id="00000093") for row in rows])
    assert [item.id for item in benchmark.read(source).items] == ["00000093", "00000093/2"]
    assert len(benchmark.read(replace(source, skip_bad=True))) == 2


def test_benchmarks_read_messages_too(tmp_path):
    benchmark, source = prepared("music_avqa json", tmp_path)
    plain = benchmark.read(source).items[0]
    turns = [{"role": "user", "content": "<video>\nHow many sound?"}, {"role": "assistant", "content": "two"}]
    layouts.write_json(tmp_path / "avqa_test.json", [{"messages": turns, "videos": ["00000093.mp4"]}])
    item = benchmark.read(source).items[0]
    assert (item.question, item.target, item.media) == (plain.question, plain.target, plain.media)


@pytest.mark.parametrize("text", ["What is a <audio> tag?", "Loud?"])
def test_a_tag_of_another_medium_stays_and_a_medium_without_tag_is_shown(text, tmp_path):
    benchmark, source = prepared("music_avqa json", tmp_path)
    edit_json(tmp_path / "avqa_test.json", lambda rows: rows[0]["conversations"][0].__setitem__("value", text))
    item = benchmark.read(source).items[0]
    assert item.question == text
    assert len(item.media) == 1


OPEN = {"[Ar]4s2": ("[Ar]4s2",), "['5', 'five']": ("5", "five"), "[3": ("[3",), "5": ("5",)}


@pytest.mark.parametrize("answer", OPEN)
def test_open_answers_of_mmmu_that_look_like_a_list(answer, tmp_path):
    row = {"id": "validation_Art_1", "question": "<image 1>?", "options": "[]", "answer": answer}
    row |= {"question_type": "open", "image_1": media.cell()}
    path = layouts.write_parquet(tmp_path / "validation-0.parquet", [row])
    assert BENCHMARKS["mmmu"].read(Source(path=str(path))).items[0].target == OPEN[answer]


def test_one_answer_cannot_be_compared(tmp_path):
    benchmark, source = prepared("textvqa json", tmp_path)
    edit_json(tmp_path / "TextVQA_0.5.1_val.json", lambda c: c["data"][1].__setitem__("answers", ["red"]))
    with pytest.raises(BadRow, match="answers has one entry: VQA accuracy compares people with one another"):
        benchmark.read(source)


# ---- subtitles

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


def test_the_names_on_the_hub_are_the_new_ones():
    paths = [benchmark.source.path for benchmark in BENCHMARKS.values() if benchmark.source.path]
    assert not [path for path in paths if path.startswith("lmms-lab/")]
    assert {path.partition("/")[0] for path in paths} == {
        "lmms-lab-encoder", "lmms-eval", "lmms-lab-audio", "OpenGVLab", "MUIRBENCH"
    }  # fmt: skip
