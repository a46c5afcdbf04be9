"""Several runs side by side."""

import json
import re
import shutil

import pytest

from tamp_lightning.reporting.compare import methods, names, rank, write_comparison
from tamp_lightning.reporting.run import Run

from .conftest import EVIL, tamp


@pytest.fixture
def runs(tamp_run, wanda_run):
    return [Run.read(tamp_run[0]), Run.read(wanda_run[0])]


def test_ranked_by_retention_with_paired_intervals(runs):
    first, second = rank(runs)
    assert first.scored.retention.value >= second.scored.retention.value
    assert (first.behind, first.kl_behind) == (None, None)
    assert second.behind.value == pytest.approx(second.scored.retention.value - first.scored.retention.value)
    assert second.behind.low < second.behind.value < second.behind.high
    assert second.kl_behind.value == pytest.approx(second.scored.kl_interval.value - first.scored.kl_interval.value)


def test_other_questions_are_not_paired(runs):
    runs[0].rows.pop()
    assert [own.behind for own in rank(runs)] == [None, None]


def test_names_tell_runs_apart(runs, tamp_run, tmp_path):
    twin = tmp_path / "twin"
    shutil.copytree(tamp_run[0], twin, ignore=shutil.ignore_patterns("model"))
    three = [*runs, Run.read(twin)]
    assert names(runs) == ["TAMP 50 %", "Wanda 30 %"]
    assert names(three) == ["TAMP 50 % (tamp)", "Wanda 30 %", "TAMP 50 % (twin)"]
    assert list(methods(three)) == ["TAMP", "Wanda"]
    three[2].recipe["method"]["amia"]["neighbors"] = 5
    assert len(methods(three)) == 3


def test_page_of_a_comparison(tamp_run, wanda_run, tmp_path):
    out = tmp_path / "comparison.html"
    args = ["report", str(tamp_run[0]), str(wanda_run[0]), f"--out={out}", f"--figures={tmp_path / 'figures'}"]
    assert tamp(*args) == f"report: {out}\n"
    text = out.read_text()
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Ranking", "Against sparsity", "The runs"]
    assert "<script" not in text
    kinds = {f"{name}.{kind}" for name in ("retention", "kl", "ranking") for kind in ("png", "svg")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == kinds
    tamp(*args)  # a page of ours may be made again
    out.write_text("mine")
    with pytest.raises(SystemExit):
        tamp(*args)
    assert out.read_text() == "mine"


def test_hostile_names_are_only_text(hostile, wanda_run, tmp_path):
    recipe = hostile / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("tokens: amia", f"tokens: {json.dumps(EVIL)}"))
    text = write_comparison([hostile, wanda_run[0]], tmp_path / "c.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_run_without_scores_is_refused(runs):
    with pytest.raises(ValueError, match="no scores to compare"):
        rank([runs[0], Run(runs[1].folder, runs[1].run, runs[1].recipe, runs[1].plan, None, [], {})])
