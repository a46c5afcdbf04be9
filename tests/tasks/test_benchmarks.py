"""Public benchmarks in every task: scores of two models, verdicts and the page."""

import json

import pyarrow.parquet as pq
import pytest

from tamp_lightning.cli import main as cli
from tamp_lightning.evaluation import scorer
from tamp_lightning.reporting.run import Run

from ..fixtures.layouts import LAYOUTS

QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
NAMES = "[pope,mmbench]"


@pytest.fixture(scope="module")
def checkpoint(bed, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    bed.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """POPE and MMBench in their public layouts."""
    folder, section = tmp_path_factory.mktemp("files"), {}
    for layout in ("pope jsonl", "mmbench tsv"):
        name, write = LAYOUTS[layout]
        (folder / name).mkdir()
        source = write(folder / name)
        section[name] = {"path": source.path, **({"media": source.media} if source.media else {})}
    return section


@pytest.fixture(scope="module")
def options(checkpoint, files):
    scores = [f"--scores.benchmarks={NAMES}", f"--scores.data={json.dumps(files)}", "--scores.new_tokens=3"]
    return [f"--model.checkpoint={checkpoint}", "--calibration.samples=2", "--calibration.turns=1", *scores, *QUIET]


def content(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def pruned(options, tmp_path_factory):
    pytest.importorskip("easy_vqa")
    out = tmp_path_factory.mktemp("runs") / "pruned"
    cli.main(["run", "llava_next_tamp", *options, f"--out={out}"])
    return out


def test_a_prune_run_ends_in_a_report_with_both(pruned):
    metrics, page = content(pruned / "metrics.json"), (pruned / "report.html").read_text()
    assert list(metrics["benchmarks"]) == ["pope", "mmbench"]
    assert metrics["questions"] == 6 + 2  # rotations count once
    assert (metrics["benchmarks"]["pope"]["floor"], metrics["fidelity"]) == (0.5, None)
    assert metrics["benchmarks"]["mmbench"]["dense"] == metrics["dense"]["mmbench"]["circular"]
    assert all(name in page for name in ("pope", "mmbench", "above chance", metrics["verdict"]))
    rows = pq.read_table(pruned / "predictions.parquet").to_pylist()
    assert [row["benchmark"] for row in rows] == ["pope"] * 6 + ["mmbench"] * 6
    assert {row["picture"] for row in rows if row["benchmark"] == "pope"} == {"pope/COCO_val2014_000000000000.jpg"}
    run = Run.read(pruned)
    for own in run.scored.benchmarks:
        held = metrics["benchmarks"][own.name]
        assert (own.dense.value, own.pruned.value) == pytest.approx((held["dense"], held["pruned"]))


def test_the_dense_model_is_asked_once(pruned, options, tmp_path, monkeypatch, capsys):
    asked = []
    load = scorer.load_whole
    monkeypatch.setattr(scorer, "load_whole", lambda folder, dtype: asked.append(folder.name) or load(folder, dtype))
    cli.main(["run", "wanda", *options, f"--out={tmp_path / 'out'}"])
    assert asked == ["model"]  # the pruned one
    out = " ".join(capsys.readouterr().out.split())
    assert "mmbench: 6 answers of tiny from the cache" in out
    assert "McNemar's exact test" in out


def test_pictures_may_ride_along_where_answers_are_likelihoods(pruned, options, tmp_path):
    more = ["--scores.answers=likelihood", "--scores.batch_size=2"]
    for mode in ("whole", "layer_wise"):
        cli.main(["run", "wanda", *options, *more, f"--scores.mode={mode}", f"--out={tmp_path / mode}"])
    first, second = (content(tmp_path / mode / "metrics.json") for mode in ("whole", "layer_wise"))
    assert first == second
    assert first["fidelity"]["kl"] > 0
    assert first["pruned"]["pope"]["unparsed"] == 0


def test_evaluate_scores_a_checkpoint_beside_its_reference(pruned, checkpoint, files, tmp_path, capsys):
    data = [f"--benchmarks={NAMES}", f"--data={json.dumps(files)}", "--new_tokens=3", f"--reference={checkpoint}"]
    cli.main(["evaluate", f"--checkpoint={pruned / 'model'}", *data, *QUIET, f"--out={tmp_path / 'out'}"])
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("from the cache") == 6  # both models were asked when the run was made
    [place] = (tmp_path / "out").glob("model-*")
    wanted, found = content(pruned / "metrics.json"), content(place / "metrics.json")
    assert {k: v for k, v in found.items() if k != "split"} == {k: v for k, v in wanted.items() if k != "split"}
    assert "What differs" in (place / "report.html").read_text()


REFUSED = {
    "--scores.benchmarks=[pop]": "benchmarks has 'pop', expected easy_vqa, easy_vqa_forms, skills, clips, mmbench",
    "--scores.benchmarks=pope,mme": "benchmarks has 'pope,mme', expected",
    "--scores.limit=0": "scores.limit is 0; it has to be at least 1",
    "--scores.mode=layer_wise": "replies to pope are generated, which takes a whole model",
    "--scores.data={mmme: x}": "data has 'mmme', expected mmbench",
}


@pytest.mark.parametrize(("option", "message"), REFUSED.items())
def test_refusals_are_one_line_and_write_nothing(option, message, options, tmp_path, capsys):
    with pytest.raises(SystemExit) as code:
        cli.main(["run", "wanda", *options, option, f"--out={tmp_path / 'out'}"])
    err = capsys.readouterr().err
    assert (code.value.code, err.count("\n")) == (2, 1)
    assert message in err
    assert not (tmp_path / "out").exists()
