"""What a run leaves for the report, and what the report says, against the run's own files."""

import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tamp_lightning.cli.parsing import parse
from tamp_lightning.reporting.advice import advice
from tamp_lightning.reporting.examples import frames, thumbnail, worst_flips
from tamp_lightning.reporting.html import write_report
from tamp_lightning.reporting.run import Run
from tamp_lightning.runs.folder import find_runs

from .conftest import EVIL, tamp

SECTIONS = ["What was done", "What it cost in quality", "Where the zeros went", "Why", "What to do next"]


def page(folder):
    return (folder / "report.html").read_text()


def test_a_run_ends_with_the_path_of_its_report(tamp_run):
    folder, printed = tamp_run
    assert printed.splitlines()[-1] == f"report: {folder / 'report.html'}"
    assert (folder / "report.html").stat().st_size < 2_000_000


def test_the_sections_stand_in_order_and_nothing_is_loaded(tamp_run):
    text = page(tamp_run[0])
    assert re.findall(r"<h2>(.*?)</h2>", text) == SECTIONS
    assert "http" not in re.sub(r'http-equiv|xmlns(:xlink)?="[^"]*"', "", text)
    assert all(uri.startswith("data:image/") for uri in re.findall(r'<img src="([^"]*)"', text))
    assert "<script" not in text
    assert re.findall(r'\bid="([^"]*)"', text) == list(dict.fromkeys(re.findall(r'\bid="([^"]*)"', text)))


def test_scores_of_the_rows_are_those_of_metrics_json(tamp_run):
    run = Run.read(tamp_run[0])
    for own in run.scored.benchmarks:
        wanted = run.metrics["benchmarks"][own.name]
        assert (own.dense.value, own.pruned.value) == pytest.approx((wanted["dense"], wanted["pruned"]))
        assert own.dense.low <= own.dense.value <= own.dense.high
    assert run.scored.retention.value == pytest.approx(run.metrics["retention"])
    if run.metrics["corrected_retention"] is None:
        assert run.scored.above is None
    else:
        assert run.scored.above.value == pytest.approx(run.metrics["corrected_retention"])
    assert f"{run.metrics['retention']:.1f} %" in page(tamp_run[0])


def test_certainty_is_a_probability_and_agrees_with_the_answer(tamp_run):
    rows = pq.read_table(tamp_run[0] / "predictions.parquet").to_pylist()
    for row in rows:
        assert 0 <= row["dense_certainty"] <= 1
        if row["benchmark"] == "yes_no":
            assert (row["dense_certainty"] >= 0.5) == (row["dense"] == row["answer"])
        assert row["dense_score"] == (row["dense"] == row["answer"])


def test_flips_come_from_all_benchmarks_in_turn_the_largest_loss_first():
    def row(benchmark, picture, before, after, right=(1.0, 0.0)):
        scores = dict(zip(("dense_score", "pruned_score"), right, strict=True))
        return {
            "benchmark": benchmark,
            "picture": picture,
            "dense_certainty": before,
            "pruned_certainty": after,
            **scores,
        }

    rows = [
        row("a", 1, 0.9, 0.5),
        row("a", 2, 1.0, 0.0),
        row("a", 2, 1.0, 0.1),
        row("b", 2, 0.9, 0.2),
        row("b", 3, 0.8, 0.7),
        row("a", 4, 1.0, 0.0, (1.0, 1.0)),
        row("a", 5, 0.1, 0.0, (0.0, 0.0)),
    ]
    assert [(r["benchmark"], r["picture"]) for r in worst_flips(rows)] == [("a", 2), ("b", 3), ("a", 1)]
    assert len(worst_flips(rows, 1)) == 1


def test_the_pictures_of_the_shown_flips_are_there(tamp_run):
    run = Run.read(tamp_run[0])
    shown = worst_flips(run.rows)
    assert shown
    assert {str(row["picture"]) for row in shown} == set(run.examples["pictures"])


def test_chosen_tokens_are_those_of_the_plan(tamp_run):
    """Counted over all samples the choices of a block make up its tokens per sample; here over those watched."""
    run = Run.read(tamp_run[0])
    assert len(run.examples["samples"]) == 3
    for sample in run.examples["samples"]:
        assert [medium["kind"] for medium in sample["media"]] == ["image"]
        assert sum(grid["rows"] * (grid["columns"] + grid["newline"]) for grid in sample["media"][0]["grids"]) == 88
        assert list(sample["chosen"]) == ["0", "1", "2"]
        for block, votes in sample["chosen"].items():
            assert len(votes) == sample["tokens"]
            assert 0 < max(votes) <= sample["linears"][block] == 7
    total = run.examples["calibration_tokens"]
    assert total["image"] == 4 * 88
    assert total["video"] == total["audio"] == 0


def test_votes_add_up_to_tokens_per_sample(make_run):
    """With as many samples as are watched, votes and plan count the same choices."""
    folder, _ = make_run("three", "llava_next_tamp", "--calibration.samples=3", "--scores.benchmarks=none")
    run = Run.read(folder)
    for block in run.plan.blocks:
        votes = sum(sum(sample["chosen"][str(block)]) for sample in run.examples["samples"])
        assert votes / 7 / 3 == pytest.approx(run.plan.block_tokens(block))


def test_without_benchmarks_the_section_says_so(make_run):
    text = page(make_run("unscored", "wanda", "--scores.benchmarks=none")[0])
    assert re.findall(r"<h2>(.*?)</h2>", text) == SECTIONS
    assert "No benchmark was scored in this run" in text
    assert "tamp evaluate --checkpoint" in text


def test_video_and_sound_lie_on_a_timeline(video_run):
    run = Run.read(video_run)
    kinds = [[medium["kind"] for medium in sample["media"]] for sample in run.examples["samples"]]
    assert kinds == [["video", "audio"], ["video", "audio"], ["audio"]]
    assert all(len(sample["media"][0]["frames"]) == 4 for sample in run.examples["samples"][:2])
    text = page(video_run)
    assert text.count("time in the video") == text.count("time in the audio") - 2 == 4  # wide and narrow
    assert len(text) < 2_000_000


def test_hostile_text_is_only_text(hostile):
    text = write_report(hostile).read_text()
    assert "<script" not in text
    assert "<img src=x" not in text
    assert text.count("&lt;script&gt;") > 10
    assert EVIL not in text


def test_every_command_in_the_advice_is_accepted(tamp_run, wanda_run):
    seen = set()
    for folder, _ in (tamp_run, wanda_run):
        run = Run.read(folder)
        for row in run.rows:
            row["pruned_score"] = 0.0
        for item in advice(run):
            if item.command and item.command.startswith("tamp run"):
                name, *overrides = item.command.split()[2:]
                parse(name, overrides)
                seen.add(overrides[0].partition("=")[0])
    assert "--method.solver" in seen


def test_the_command_repeats_the_run_to_the_bit(tamp_run, tmp_path):
    folder = tamp_run[0]
    command = re.search(r"<pre>tamp run (.*?)</pre>", page(folder))[1].split()
    tamp("run", command[0], "--scores.benchmarks=none", f"--out={tmp_path / 'again'}")
    first, second = (json.loads((f / "plan.json").read_text()) for f in (folder, tmp_path / "again"))
    assert first == second


def test_report_is_made_again_from_the_folder_alone(tamp_run, tmp_path):
    copy = tmp_path / "moved"
    shutil.copytree(tamp_run[0], copy, ignore=shutil.ignore_patterns("model", "masks.safetensors", "report.html"))
    assert tamp("report", str(copy)) == f"report: {copy / 'report.html'}\n"
    differences = [a for a, b in zip(page(copy).splitlines(), page(tamp_run[0]).splitlines(), strict=True) if a != b]
    assert all("tamp " in line for line in differences)  # commands name the folder


def test_figures_for_papers(tamp_run, tmp_path):
    tamp("report", str(tamp_run[0]), f"--out={tmp_path / 'r.html'}", f"--figures={tmp_path / 'figures'}")
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert {"benchmarks", "sparsity", "budget", "diversity", "token-share"} < names
    for name in names:
        with Image.open(tmp_path / "figures" / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5
        assert "var(--" not in (tmp_path / "figures" / f"{name}.svg").read_text()


@pytest.mark.parametrize("name", ["run.json", "plan.json", "recipe.yaml"])
def test_a_damaged_folder_is_one_line(tamp_run, tmp_path, capsys, name):
    copy = tmp_path / "run"
    shutil.copytree(tamp_run[0], copy, ignore=shutil.ignore_patterns("model", "report.html"))
    (copy / name).write_text("{")
    with pytest.raises(SystemExit) as stop:
        tamp("report", str(copy))
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (copy / "report.html").exists()


def test_run_folders_are_found(tamp_run, wanda_run, tmp_path):
    assert set(find_runs([tamp_run[0].parent])) >= {tamp_run[0], wanda_run[0]}
    with pytest.raises(ValueError, match="is no folder"):
        find_runs([tmp_path / "none"])
    with pytest.raises(ValueError, match="holds no finished prune run"):
        find_runs([tmp_path])


def test_thumbnails_are_small_and_frames_spread():
    assert len(thumbnail(Image.new("RGB", (4000, 3000), "red"))) < 20_000
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    assert thumbnail(Image.fromarray(noise)).startswith("data:image/jpeg")
    video = np.stack([np.full((8, 8, 3), 10 * k, dtype=np.uint8) for k in range(10)])
    assert frames(video) == frames({"video": video}) == [thumbnail(Image.fromarray(video[k])) for k in (0, 3, 6, 9)]
