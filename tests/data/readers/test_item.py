"""Corrupt rows, missing files and duplicate ids: an error that names file and row, or left out and counted."""

import csv
import json
from dataclasses import replace

import pytest

from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.readers.item import BadRow, Source

from ...fixtures import layouts
from ...fixtures.layouts import LAYOUTS


def edit_lines(path, change):
    lines = path.read_text().splitlines()
    change(lines)
    path.write_text("\n".join(lines) + "\n")


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_tsv(path, change):
    csv.field_size_limit(10**7)
    with path.open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    change(rows)
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(rows)


def cut_line(folder):
    edit_lines(folder / "coco_pope_popular.json", lambda lines: lines.__setitem__(1, lines[1][:20]))


def no_object(folder):
    edit_lines(folder / "coco_pope_popular.json", lambda lines: lines.append("[1, 2]"))


def same_id(folder):
    edit_lines(folder / "coco_pope_popular.json", lambda lines: lines.append(lines[0]))


def wrong_label(folder):
    path = folder / "coco_pope_random.json"
    path.write_text(path.read_text().replace('"no"', '"maybe"'))


def lost_picture(folder):
    path = folder / "coco_pope_adversarial.json"
    path.write_text(path.read_text().replace("000000000000", "000000000001"))


def short_row(folder):
    edit_tsv(folder / "MMBench_DEV_EN.tsv", lambda rows: rows[2].pop())


def no_base64(folder):
    edit_tsv(folder / "MMBench_DEV_EN.tsv", lambda rows: rows[3].__setitem__(-1, "%" * 200))


def unknown_index(folder):
    edit_tsv(folder / "MMBench_DEV_EN.tsv", lambda rows: rows[2].__setitem__(-1, "99"))


def answer_beyond_options(folder):
    edit_tsv(folder / "MMBench_DEV_EN.tsv", lambda rows: rows[5].__setitem__(7, "C"))


def no_answer(folder):
    edit_tsv(folder / "MMBench_DEV_EN.tsv", lambda rows: rows[1].__setitem__(7, ""))


def answer_without_text(folder):
    edit_tsv(folder / "MMBench_DEV_EN.tsv", lambda rows: rows[1].__setitem__(3, ""))


def one_option(folder):
    edit_tsv(folder / "MMBench_DEV_EN.tsv", lambda rows: rows[5].__setitem__(4, ""))


def repeated_index(folder):
    edit_tsv(folder / "MMBench_DEV_EN.tsv", lambda rows: rows[6].__setitem__(0, "8"))


def answer_number_too_high(folder):
    edit_json(folder / "problems.json", lambda rows: rows["1"].__setitem__("answer", 3))


def answers_of_a_test_split(folder):
    edit_json(folder / "TextVQA_0.5.1_val.json", lambda content: content["data"][1].pop("answers"))


def no_annotation(folder):
    edit_json(folder / "mscoco_val2014_annotations.json", lambda content: content["annotations"].pop())


def answer_not_among_candidates(folder):
    edit_json(folder / "json" / "action_count.json", lambda rows: rows[0].__setitem__("answer", "pink"))


def no_seconds(folder):
    edit_json(folder / "json" / "action_sequence.json", lambda rows: rows[0].__setitem__("start", "soon"))


def lost_video(folder):
    (folder / "data" / "clip1.mp4").unlink()


def wrong_speaker(folder):
    edit_json(folder / "avqa_test.json", lambda rows: rows[0]["conversations"][1].__setitem__("from", "human"))


def one_turn(folder):
    edit_json(folder / "avqa_test.json", lambda rows: rows[1]["conversations"].pop())


def no_tab(folder):
    path = folder / "color" / "0001.txt"
    path.write_text(path.read_text() + "Is it green?\n")


CASES = {
    "pope jsonl": [
        (cut_line, r"coco_pope_popular\.json line 2: no JSON", 1),
        (no_object, r"coco_pope_popular\.json line 3: expected an object, got list", 1),
        (same_id, r"popular\.json line 3: id 'popular/1' was used at coco_pope_popular\.json line 1", 1),
        (wrong_label, r"random\.json line 2: label is 'maybe', expected yes or no", 1),
        (lost_picture, r"adversarial\.json line 1: image .*000000000001\.jpg does not exist", 2),
    ],
    "mmbench tsv": [
        (short_row, r"MMBench_DEV_EN\.tsv row 3: 10 fields, the header has 11", 4),
        (no_base64, r"tsv row 4: image is no base64: '%%%", 4),
        (unknown_index, r"tsv row 3: image names row '99', which holds no picture", 4),
        (answer_beyond_options, r"tsv row 6: answer is 'C', expected one of the letters of 2 options", 2),
        (no_answer, r"tsv row 2: no answer, which other rows have", 4),
        (answer_without_text, r"tsv row 2: answer is A, an option without text", 4),
        (one_option, r"tsv row 6: fewer than two of the options A to E have a text", 2),
        (repeated_index, r"tsv row 7: id '8' was used at MMBench_DEV_EN\.tsv row 6", 2),
    ],
    "scienceqa folder": [(answer_number_too_high, r"problems\.json entry 2: answer is 3, expected 0 to 2", 1)],
    "textvqa json": [(answers_of_a_test_split, r"val\.json entry 2: no answer, which other rows have \(skip_bad", 1)],
    "vqav2 official": [(no_annotation, r"questions\.json entry 2: question 10 has no annotation", 1)],
    "mvbench": [
        (answer_not_among_candidates, r"action_count\.json entry 1: answer is 'pink', which is none of the options", 1),
        (no_seconds, r"action_sequence\.json entry 1: start and end are 'soon' and 2\.0, expected seconds", 1),
    ],
    "videomme": [(lost_video, r"row 2: video 'clip1' is not in .*unpack the videos there, or give media", 2)],
    "music_avqa json": [
        (wrong_speaker, r"avqa_test\.json entry 1: the turns begin with user, user: expected a user and an assist", 1),
        (one_turn, r"avqa_test\.json entry 2: the turns begin with user: expected a user and an assistant", 1),
    ],
    "mme folder": [(no_tab, r"color/0001\.txt line 3: 'Is it green\?' has no tab", 1)],
}
FLAT = [(layout, *case) for layout, cases in CASES.items() for case in cases]


def prepared(layout, folder):
    if layout in ("mvbench", "videomme", "music_avqa json"):
        pytest.importorskip("av")
    benchmark, write = LAYOUTS[layout]
    return BENCHMARKS[benchmark], write(folder)


@pytest.mark.parametrize(("layout", "harm", "message", "rows"), FLAT, ids=[case[1].__name__ for case in FLAT])
def test_bad_rows_are_named_or_left_out_and_counted(layout, harm, message, rows, tmp_path):
    benchmark, source = prepared(layout, tmp_path)
    whole = len(benchmark.read(source))
    harm(tmp_path)
    with pytest.raises(BadRow, match=message) as error:
        benchmark.read(source)
    assert "\n" not in str(error.value)
    items = benchmark.read(replace(source, skip_bad=True))
    assert len(items.bad) == rows
    # a row that was added is not one of the whole
    assert len(items) == whole - rows + (harm in (no_object, same_id, no_tab))


def test_half_a_pair_of_mme_is_refused_or_left_out_whole(tmp_path):
    benchmark, source = prepared("mme folder", tmp_path)
    path = tmp_path / "color" / "0001.txt"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(BadRow, match=r"color/0001\.jpg has 1 questions, every picture of MME has two"):
        benchmark.read(source)
    assert len(benchmark.read(replace(source, skip_bad=True))) == 2


def test_empty_picture_cell_is_a_bad_row(tmp_path):
    rows = layouts.vqa_rows(as_objects=True)
    rows[1]["image"] = None
    source = Source(path=str(layouts.write_parquet(tmp_path / "val-0.parquet", rows)))
    with pytest.raises(BadRow, match=r"val-0\.parquet row 1: image is empty"):
        BENCHMARKS["vqav2"].read(source)


def test_nothing_left_is_an_error_even_when_bad_rows_may_be_left_out(tmp_path):
    path = tmp_path / "pope.jsonl"
    path.write_text("{\n")
    with pytest.raises(ValueError, match=r"pope\.jsonl has no usable row \(1 bad: no JSON"):
        BENCHMARKS["pope"].read(Source(path=str(path), skip_bad=True))


PLACES = {
    "missing.tsv": "missing.tsv does not exist",
    "./missing": "missing does not exist",
    "notes.txt": "notes.txt is none of .tsv, .parquet",
    "empty": "empty holds no .tsv or .parquet file",
}


@pytest.mark.parametrize(("name", "message"), PLACES.items())
def test_place_without_data(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises((ValueError, OSError), match=message):
        BENCHMARKS["mmbench"].read(Source(path=name))


def test_hub_that_does_not_answer_is_one_line(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(
        FileNotFoundError, match=r"cannot read nobody/nothing en dev: .*give a hub id or a local"
    ) as error:
        BENCHMARKS["mmbench"].read(Source("nobody/nothing", "en", "dev"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_has_to_be_positive(limit, tmp_path):
    source = replace(LAYOUTS["pope jsonl"][1](tmp_path), limit=limit)
    with pytest.raises(ValueError, match=f"limit is {limit}; it has to be at least 1"):
        BENCHMARKS["pope"].read(source)
