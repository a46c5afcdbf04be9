"""Where a run writes, what decides its result, and whether it can be continued."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tamp_lightning.config.recipe import CacheChoice, PruneRecipe
from tamp_lightning.runs.resume import may_continue, run_path, settings_of
from tamp_lightning.runs.state import FOLDER


def trainer(processes=1, is_first=True):
    return SimpleNamespace(world_size=processes, is_global_zero=is_first)


def test_a_folder_is_named_after_recipe_and_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.fullmatch(r"runs/wanda-\d{8}-\d{6}", str(run_path(None, "wanda")))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    assert run_path("there", "wanda", is_first=False).name == "there"
    with pytest.raises(ValueError, match="there exists: nothing is overwritten, choose another with --out"):
        run_path("there", "wanda")


def test_what_shows_only_and_where_it_goes_decide_nothing():
    recipe = PruneRecipe(trainer={"accelerator": "cpu", "logger": False})
    same = replace(recipe, out="elsewhere", cache=CacheChoice(1.0), trainer={"accelerator": "cpu", "logger": True})
    assert settings_of(same) == settings_of(recipe)
    assert settings_of(recipe)["trainer"] == {"accelerator": "cpu"}
    assert settings_of(replace(recipe, seed=1)) != settings_of(recipe)


def test_a_run_that_is_scored_layer_by_layer_cannot_be_continued(tmp_path):
    assert may_continue(trainer(), tmp_path, True, False, 0.5)
    assert not may_continue(trainer(), tmp_path, True, True, None)
    with pytest.raises(ValueError, match=r"cache\.limit_gb is 0\.5; with scores\.mode layer_wise"):
        may_continue(trainer(), tmp_path, True, True, 0.5)
    (tmp_path / FOLDER).mkdir()
    with pytest.raises(ValueError, match=r"holds an unfinished run, which scores\.mode layer_wise cannot continue"):
        may_continue(trainer(), tmp_path, True, True, None)


def test_several_processes_need_a_folder_that_all_know(tmp_path, monkeypatch):
    assert may_continue(trainer(2), tmp_path, False, False, None)
    with pytest.raises(ValueError, match=r"cache\.limit_gb is 0\.5; processes need a folder .*: give --out"):
        may_continue(trainer(2), tmp_path, False, False, 0.5)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    with pytest.raises(ValueError, match="torchrun may restart this run, which would not find its folder again"):
        may_continue(trainer(2), tmp_path, False, False, None)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with pytest.raises(ValueError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        may_continue(trainer(2), tmp_path, True, False, None)
