"""Recipes written for earlier versions."""

from dataclasses import asdict

import pytest
import yaml

from tamp_lightning.cli.parsing import parse
from tamp_lightning.config import aliases
from tamp_lightning.config.aliases import completed, modern, modern_option
from tamp_lightning.methods.options import Refit
from tamp_lightning.methods.tilt import Diversity


@pytest.fixture
def _renamed(monkeypatch):
    monkeypatch.setattr(aliases, "RENAMED_KEYS", {"method.old": "method.new"})


@pytest.mark.usefixtures("_renamed")
def test_a_renamed_key_moves_and_is_noted_and_the_content_given_stays():
    content, notes = {"method": {"old": {"a": 1}, "tokens": "all"}, "seed": 3}, []
    assert modern(content, notes) == {"method": {"new": {"a": 1}, "tokens": "all"}, "seed": 3}
    assert notes == ["method.old is now method.new"]
    assert content["method"] == {"old": {"a": 1}, "tokens": "all"}
    assert modern_option("method.old.a", "2", notes) == ("method.new.a", "2")
    assert modern_option("method.older", "2", notes) == ("method.older", "2")
    assert notes[1:] == ["--method.old is now --method.new"]


@pytest.mark.usefixtures("_renamed")
def test_a_comparison_may_name_a_renamed_key_in_each_of_its_methods():
    content, notes = {"methods": {"a": {"old": 1}, "b": {"tokens": "all"}, "c": {"old": 2}}}, []
    assert modern(content, notes)["methods"] == {"a": {"new": 1}, "b": {"tokens": "all"}, "c": {"new": 2}}
    assert notes == ["methods.a.old is now method.new", "methods.c.old is now method.new"]


def test_what_an_older_version_did_not_know_is_at_its_default_as_a_file_holds_it():
    found = completed({"tokens": "all", "refit": {"steps": 3}, "diversity": {"width": 0.1}})
    assert found["refit"] == asdict(Refit(3))
    assert found["diversity"] == asdict(Diversity(0.1)) | {"widths": []}
    assert list(found)[:1] == ["tokens"]
    assert found == yaml.safe_load(yaml.safe_dump(found))


def test_polish_is_reconstruction(tmp_path, capsys):
    recipe = tmp_path / "old.yaml"
    recipe.write_text("method: {tokens: all, polish: {steps: 4, lr: 0.001}}\n")
    made = parse(str(recipe), [])[0].method.reconstruct
    assert (made.steps, made.lr, made.halves) == (4, 0.001, True)
    assert "note: method.polish is now method.reconstruct" in capsys.readouterr().err


@pytest.mark.usefixtures("_renamed")
def test_old_and_new_side_by_side_are_left_to_be_refused():
    both, notes = {"method": {"old": 1, "new": 2}}, []
    assert (modern(both, notes), notes) == (both, [])


@pytest.mark.parametrize("content", [{}, {"scores": None}, {"scores": 3}, {"scores": {"mode": ["ride_along"]}}])
def test_what_is_no_section_is_left_to_be_refused(content):
    notes = []
    assert (modern(content, notes), notes) == (content, [])


def test_an_old_value_is_read_with_one_line(tmp_path, capsys):
    recipe = tmp_path / "old.yaml"
    recipe.write_text("scores: {mode: ride_along, batch_size: 4}\n")
    scores = parse(str(recipe), [])[0].scores
    assert (scores.mode, scores.batch_size) == ("layer_wise", 4)
    assert capsys.readouterr().err == (
        "note: scores.mode ride_along is now layer_wise: the old name is still read, and will go\n"
    )
    recipe.write_text("seed: 1\n")
    assert parse(str(recipe), ["--scores.mode=ride_along"])[0].scores.mode == "layer_wise"
    assert capsys.readouterr().err.count("\n") == 1
    assert parse(str(recipe), ["--scores.mode=layer_wise"])[0].scores.mode == "layer_wise"
    assert capsys.readouterr().err == ""
