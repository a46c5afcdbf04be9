"""Test splits without answers: asked, not scored, and written as the server takes it."""

import csv
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from tamp_lightning.benchmarks import submissions
from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.cli.parsing import parse
from tamp_lightning.data.readers.item import Item, Media, Source
from tamp_lightning.tasks.evaluate import run_evaluate

from ..data.readers.test_item import edit_json, edit_tsv
from ..fixtures import layouts, media
from ..fixtures.layouts import LAYOUTS


def blind(layout, folder):
    """A layout with its answers taken out, as the official test split has it."""
    name, write = LAYOUTS[layout]
    source = write(folder)
    if layout == "mmbench tsv":
        edit_tsv(folder / "MMBench_DEV_EN.tsv", lambda rows: [row.pop(7) for row in rows])
    elif layout == "vizwiz json":
        edit_json(folder / "val.json", lambda rows: [row.pop("answers") for row in rows])
    elif layout == "textvqa json":
        edit_json(folder / "TextVQA_0.5.1_val.json", lambda c: [row.pop("answers") for row in c["data"]])
    elif layout == "vqav2 official":
        (folder / "mscoco_val2014_annotations.json").unlink()
        old = folder / "OpenEnded_mscoco_val2014_questions.json"
        old.rename(folder / "v2_OpenEnded_mscoco_test-dev2015_questions.json")
        source = replace(source, split="testdev")
    return BENCHMARKS[name], source


BLIND = ["mmbench tsv", "vizwiz json", "textvqa json", "vqav2 official"]


@pytest.mark.parametrize("layout", BLIND)
def test_splits_without_answers_are_read(layout, tmp_path):
    benchmark, source = blind(layout, tmp_path)
    items = benchmark.read(source)
    assert not items.scored
    assert not items.bad
    (tmp_path / "again").mkdir()
    assert len(items) == len(benchmark.read(LAYOUTS[layout][1](tmp_path / "again")))


def items_of(name, *ids, **more):
    return [Item(id, "q?", None, media=(Media("image", media.cell),), **more) for id in ids]


def test_what_each_server_takes(tmp_path):
    said = ["red", "a dog"]
    name, content = submissions.vqa(items_of("vqav2", "10", "11"), said)
    assert (name, json.loads(content)) == (
        "submission.json",
        [{"question_id": 10, "answer": "red"}, {"question_id": 11, "answer": "a dog"}],
    )
    _, content = submissions.vizwiz(items_of("vizwiz", "VizWiz_test_0.jpg", "VizWiz_test_1"), said)
    assert json.loads(content) == [
        {"image": "VizWiz_test_0.jpg", "answer": "red"},
        {"image": "VizWiz_test_1.jpg", "answer": "a dog"},
    ]
    choice = [*items_of("mmmu", "a", options=("x", "y")), *items_of("mmmu", "b")]
    assert json.loads(submissions.mmmu(choice, ["(B)", "5"])[1]) == {"a": "B", "b": "5"}
    video = Media("video", tmp_path / "uid-1.mp4")
    asked = [Item("0", "q", None, ("r", "s", "t", "u", "v"), (video,))] * 2
    _, content = submissions.egoschema(asked, ["E", "??"])
    assert list(csv.reader(io.StringIO(content.decode()))) == [["q_uid", "answer"], ["uid-1", "4"], ["uid-1", "-1"]]
    test = [Item(f"v_1/{n}", "q", None, ("r", "s", "t"), (video,)) for n in (3, 4)]
    assert json.loads(submissions.perceptiontest(test, ["B", "no"])[1]) == {
        "v_1": [{"id": 3, "answer_id": 1, "answer": "s"}, {"id": 4, "answer_id": -1, "answer": ""}]
    }


def test_the_table_of_mmbench(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    benchmark, source = blind("mmbench tsv", tmp_path)
    items = benchmark.read(source).items
    name, content = submissions.mmbench(items, ["A"] * 6)
    assert name == "submission.xlsx"
    rows = list(openpyxl.load_workbook(io.BytesIO(content)).active.values)
    assert rows[0] == ("index", "question", "hint", "category", "A", "B", "C", "D", "E", "prediction")
    assert rows[1] == (7, "what colour is it?", "Look.", "colour", "red", "green", "blue", "grey", None, "A")
    assert len(rows) == 7


def evaluate(checkpoint, folder, name, source, *more):
    section = {name: {"path": source.path, "media": source.media, "split": source.split}}
    fixed = [
        f"--model.checkpoint={checkpoint}", f"--benchmarks=[{name}]", f"--data={json.dumps(section)}",
        f"--out={folder / 'out'}", "--new_tokens=3", "--trainer.accelerator=cpu", *more
    ]  # fmt: skip
    shown = io.StringIO()
    return run_evaluate(parse("evaluate", fixed)[0], Console(file=shown, width=300)), shown


@pytest.fixture(scope="module")
def checkpoint(bed, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    bed.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_test_split_ends_in_a_file_for_the_server_and_no_score(checkpoint, tmp_path):
    _, source = blind("vizwiz json", tmp_path)
    (scores,), shown = evaluate(checkpoint, tmp_path, "vizwiz", source)
    assert scores["results"] == {"score": None}
    rows = json.loads(next((tmp_path / "out").rglob("submission.json")).read_text())
    assert [row["image"] for row in rows] == [f"VizWiz_val_{k:08d}.jpg" for k in range(2)]
    assert all(isinstance(row["answer"], str) for row in rows)
    assert "vizwiz has no answers here and is not scored; for its server: " in shown.getvalue()
    again, _ = evaluate(checkpoint, tmp_path, "vizwiz", source)
    assert again == [scores]


def test_without_a_server_or_without_openpyxl_nothing_is_asked(checkpoint, tmp_path, monkeypatch):
    row = {"question_id": "0", "question": "Is it red?", "image": media.cell(), "category": "popular"}
    path = layouts.write_parquet(tmp_path / "test-0.parquet", [row])
    with pytest.raises(ValueError, match="answer is missing"):
        BENCHMARKS["pope"].read(Source(path=str(path)))
    row = {"question": "q", "choices": ["a", "b"], "answer": None, "hint": "", "image": media.cell()}
    science = layouts.write_parquet(tmp_path / "science.parquet", [row])
    with pytest.raises(ValueError, match="no row of scienceqa_img has an answer, and no server takes its replies"):
        evaluate(checkpoint, tmp_path, "scienceqa_img", Source(path=str(science)))
    monkeypatch.setattr(submissions.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"its server takes xlsx files: pip install 'tamp-lightning\[xlsx\]'"):
        submissions.check_submission("mmbench", submissions.mmbench)
    assert not (tmp_path / "out").exists()
