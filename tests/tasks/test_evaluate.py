"""`tamp evaluate` from the command line to the files it leaves."""

import csv
import json
import os
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from tamp_lightning.cli import main as cli
from tamp_lightning.cli.parsing import parse
from tamp_lightning.evaluation import scorer
from tamp_lightning.tasks import evaluate

from ..fixtures.layouts import LAYOUTS


@pytest.fixture(scope="module")
def checkpoint(bed, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    bed.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path):
    """Files of POPE and MMBench, as a `data` section."""
    section = {}
    for layout in ("pope jsonl", "mmbench tsv"):
        name, write = LAYOUTS[layout]
        (tmp_path / name).mkdir()
        source = write(tmp_path / name)
        section[name] = {"path": source.path, **({"media": source.media} if source.media else {})}
    return section


def options(checkpoint, data, out, *more):
    fixed = ["--new_tokens=3", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    names = ",".join(data)
    return [
        "--checkpoint",
        str(checkpoint),
        "--benchmarks",
        names,
        f"--data={json.dumps(data)}",
        f"--out={out}",
        *fixed,
        *more,
    ]


def scored(checkpoint, data, out, *more):
    overrides = cli.evaluate_overrides(options(checkpoint, data, out, *more))
    return evaluate.run_evaluate(parse("evaluate", overrides)[0], Console(quiet=True))


def test_command_leaves_predictions_scores_and_tables(checkpoint, data, tmp_path, capsys):
    out = tmp_path / "out"
    cli.main(["evaluate", *options(checkpoint, data, out)])
    shown = capsys.readouterr().out
    assert "mmbench" in shown
    assert "circular" in shown
    assert {p.name for p in out.iterdir()} == {"results.json", "results.csv", next(out.glob("tiny*")).name}
    results = json.loads((out / "results.json").read_text())
    assert [(r["benchmark"], r["questions"], r["skipped"]) for r in results] == [("mmbench", 6, []), ("pope", 6, [])]
    assert results[0]["results"]["complete"] == 1
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    held = {(r["benchmark"], r["figure"]): r["value"] for r in rows}
    assert float(held["pope", "accuracy"]) == results[1]["results"]["accuracy"]
    assert "circular/colour" in results[0]["results"]
    for path in out.rglob("predictions.parquet"):
        table = pq.read_table(path).to_pylist()
        assert len(table) == 6
        assert all(row["reply"] is not None and row["score"] in (0.0, 1.0) for row in table)


def test_second_run_reads_no_model(checkpoint, data, tmp_path, monkeypatch):
    first = scored(checkpoint, data, tmp_path / "out")
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("predictions.parquet")}
    monkeypatch.setattr(scorer, "load_whole", None)
    assert scored(checkpoint, data, tmp_path / "out") == first
    assert {p: p.stat().st_mtime_ns for p in files} == files


@pytest.mark.parametrize("change", ["weights", "question", "picture", "new_tokens", "dtype", "prompt"])
def test_other_inputs_are_scored_anew(change, checkpoint, data, tmp_path):
    data, more = {"pope": data["pope"]}, []
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())

    def key():
        overrides = cli.evaluate_overrides(options(folder, data, tmp_path / "out", *more))
        recipe = parse("evaluate", overrides)[0]
        job = evaluate.Evaluation.prepare(recipe, Console(quiet=True))
        return job.scorer(job.tasks, recipe.batch_size).store(job.tasks[0], job.folder).folder

    before = key()
    assert key() == before
    if change == "weights":
        path = folder / "model.safetensors"
        held = bytearray(path.read_bytes())
        held[-1] ^= 1
        path.write_bytes(bytes(held))
    elif change == "question":
        path = tmp_path / "pope" / "coco_pope_random.json"
        path.write_text(path.read_text().replace("Is it red", "Is it pink"))
    elif change == "picture":
        path = tmp_path / "pope" / "val2014" / "COCO_val2014_000000000000.jpg"
        os.utime(path, ns=(time.time_ns(), time.time_ns() + 10**9))
    else:
        more.append(
            {"new_tokens": "--new_tokens=5", "dtype": "--model.dtype=bfloat16", "prompt": "--prompt=bare"}[change]
        )
    assert key() != before


def test_another_checkpoint_shares_the_folder(checkpoint, data, tmp_path):
    data = {"pope": data["pope"]}
    folder = tmp_path / "other"
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "note.txt").write_text("other")
    for source in (checkpoint, folder):
        scored(source, data, tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert sorted(r["checkpoint"] for r in results) == sorted(map(str, (checkpoint, folder)))


def test_likelihood_and_generation_do_not_share_a_result(checkpoint, data, tmp_path):
    data = {"pope": data["pope"]}
    scored(checkpoint, data, tmp_path / "out")
    [likely] = scored(checkpoint, data, tmp_path / "out", "--answers=likelihood")
    assert likely["results"]["unparsed"] == 0
    assert len(list((tmp_path / "out").rglob("scores.json"))) == 2


def test_data_of_a_benchmark_that_is_not_scored_may_stay(checkpoint, data, tmp_path):
    [scores] = scored(checkpoint, data, tmp_path / "out", "--benchmarks=[pope]")
    assert scores["benchmark"] == "pope"


def test_bad_rows_are_in_the_report(checkpoint, data, tmp_path):
    data = {"pope": {**data["pope"], "skip_bad": True}}
    path = tmp_path / "pope" / "coco_pope_random.json"
    path.write_text(path.read_text() + "{\n")
    [scores] = scored(checkpoint, data, tmp_path / "out")
    assert scores["questions"] == 6
    assert [bad["place"] for bad in scores["skipped"]] == ["coco_pope_random.json line 3"]


def test_the_packed_suite_still_runs_beside_the_others(checkpoint, data, tmp_path, capsys):
    pytest.importorskip("easy_vqa")
    fixed = options(
        checkpoint, {"pope": data["pope"]}, tmp_path / "out", "--controls=[blank]", "--scores.batch_size=64"
    )
    cli.main(["evaluate", *fixed, "--benchmarks=[pope,easy_vqa]"])
    shown = capsys.readouterr().out
    assert "blank" in shown
    held = json.loads(next((tmp_path / "out").rglob("easy_vqa_test_quick.json")).read_text())
    assert held.keys() == {"own", "blank", "floor", "questions", "split"}
    assert 0 <= held["own"]["yes_no"]["accuracy"] <= 1


REFUSED = {
    ("--benchmarks=[pop]",): "error: benchmarks has 'pop', expected easy_vqa, easy_vqa_forms, skills, clips, mmbench,",
    ("--benchmarks=[]",): "error: benchmarks is empty",
    ("--benchmarks", "pope", "--data.mmme=x"): "error: data has 'mmme', expected mmbench, pope,",
    (
        "--benchmarks",
        "pope",
        "--data={pope: {pth: x}}",
    ): "error: data.pope is {'pth': 'x'}, expected a path or a section",
    (
        "--benchmarks",
        "music_avqa",
    ): "error: music_avqa has no data on the hub that we know of: give data.music_avqa.path",
    ("--benchmarks", "gqa", "--data.gqa=easy-vqa"): "error: data.gqa is easy-vqa, which is written as pope, vqav2, mmb",
    ("--benchmarks", "pope", "--data.pope=./gone"): "error: gone does not exist",
    ("--frames=0",): "error: command line: frames is 0; it has to be at least 1",
    ("--answers=guess",): "error: command line: --answers is 'guess', expected one of generate, likelihood",
    ("--checkpoint=",): "error: . holds no processor: ",
    ("--checkpoint=nowhere/else",): "error: checkpoint 'nowhere/else' is no folder",
}


@pytest.mark.parametrize(("args", "message"), REFUSED.items())
def test_refusals_are_one_line_and_write_nothing(args, message, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as code:
        cli.main(["evaluate", "--checkpoint", str(checkpoint), *args])
    err = capsys.readouterr().err
    assert (code.value.code, err.count("\n")) == (2, 1)
    assert err.startswith(message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "overrides"),
    [
        (["--checkpoint", "a/b", "--benchmarks", "x,y"], ["--model.checkpoint=a/b", "--benchmarks=[x,y]"]),
        (["--checkpoint=a", "--benchmarks=[x, y]"], ["--model.checkpoint=a", "--benchmarks=[x, y]"]),
        (["--benchmarks=x", "--out", "o"], ["--benchmarks=[x]", "--out", "o"]),
    ],
)
def test_short_names(given, overrides):
    assert cli.evaluate_overrides(given) == overrides


@pytest.mark.slow
def test_two_processes_give_the_scores_of_one(checkpoint, data, tmp_path):
    """MMBench leaves an odd number of batches; POPE leaves the second process without a question of its own."""
    data = {**data, "pope": {**data["pope"], "limit": 1}}
    path = tmp_path / "mmbench" / "MMBench_DEV_EN.tsv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    one = scored(checkpoint, data, tmp_path / "one")
    more = options(
        checkpoint, data, tmp_path / "two", "--trainer.devices=2", "--trainer.strategy=ddp", "--batch_size=1"
    )
    command = [sys.executable, "-m", "tamp_lightning", "evaluate", *more]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    two = json.loads((tmp_path / "two" / "results.json").read_text())
    by_name = {scores["benchmark"]: scores["results"] for scores in one}
    assert {scores["benchmark"]: scores["results"] for scores in two} == by_name
    tables = [
        {p.parent.name: pq.read_table(p).to_pylist() for p in (tmp_path / name).rglob("predictions.parquet")}
        for name in ("one", "two")
    ]
    assert tables[0] == tables[1]
