"""Several runs side by side."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from tamp_lightning.reporting.compare import draws, names, rank, write_comparison
from tamp_lightning.reporting.run import Run

from .conftest import EVIL, tamp


@pytest.fixture
def runs(tamp_run, wanda_run):
    return [Run.read(tamp_run[0]), Run.read(wanda_run[0])]


def test_all_are_paired_with_the_one_closest_to_the_dense_model(runs):
    result = rank(runs)
    assert result.is_paired
    first, second = result.rows()
    assert first["kl"]["value"] <= second["kl"]["value"]
    assert "against_reference" not in first
    for figure in ("retention", "kl"):
        moved = second["against_reference"][figure]
        assert moved["value"] == pytest.approx(second[figure]["value"] - first[figure]["value"])
        assert moved["low"] < moved["value"] < moved["high"]
    held = {group.name: group.runs[0].scored for group in result.groups}
    for row in (first, second):
        assert row["retention"]["low"] == pytest.approx(held[row["name"]].retention.low)
        assert row["kl"]["high"] == pytest.approx(held[row["name"]].kl_interval.high)


def test_other_questions_are_not_paired(runs, tmp_path):
    runs[0].rows.pop()
    result = rank(runs)
    assert not result.is_paired
    assert ["against_reference" in row for row in result.rows()] == [False, False]


def test_names_tell_runs_apart(runs, tamp_run, tmp_path):
    twin = tmp_path / "twin"
    shutil.copytree(tamp_run[0], twin, ignore=shutil.ignore_patterns("model"))
    three = [*runs, Run.read(twin)]
    assert names(draws(runs)) == ["TAMP", "Wanda"]
    assert names(draws(three)) == ["TAMP (tamp)", "Wanda", "TAMP (twin)"]
    three[2].recipe["method"]["amia"]["neighbors"] = 5
    three[2] = replace(three[2], run=three[2].run | {"sparsity": 0.7})
    assert names(draws(three)) == ["TAMP (tamp)", "Wanda", "TAMP (twin)"]
    assert [row["name"] for row in rank(runs).rows()] == sorted(("TAMP 50 %", "Wanda 30 %"), reverse=True)


def test_draws_of_one_recipe_are_one_row(runs, tamp_run):
    again = Run.read(tamp_run[0])
    again.recipe["calibration"] = {**again.recipe["calibration"], "seed": 7}
    again.rows[0]["kl"] += 1
    assert [len(own) for own in draws([*runs, again])] == [2, 1]
    row = next(row for row in rank([*runs, again]).rows() if row["method"] == "TAMP")
    own = [run.scored.kl_interval.value for run in (runs[0], again)]
    assert row["seeds"] == 2
    assert row["kl"]["value"] == pytest.approx(sum(own) / 2)
    again.rows.pop()
    assert [len(own) for own in draws([*runs, replace(again)])] == [1, 1, 1]


def test_page_of_a_comparison(tamp_run, wanda_run, tmp_path):
    out = tmp_path / "comparison.html"
    args = ["report", str(tamp_run[0]), str(wanda_run[0]), f"--out={out}", f"--figures={tmp_path / 'figures'}"]
    assert tamp(*args) == f"report: {out}\n"
    text = out.read_text()
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Ranking", "How it was compared"]
    assert "<script" not in text
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"ranking.png", "ranking.svg"}
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
