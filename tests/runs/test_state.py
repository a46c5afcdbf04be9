"""State of an unfinished run: complete records or none, and nothing that a killed process had half written."""

from dataclasses import asdict

import pytest
import torch

from tamp_lightning.errors import InputError
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.options import Reconstruct
from tamp_lightning.runs.state import FOLDER, OthersState, RunState


def test_a_finished_run_keeps_no_scrap_of_a_killed_process(tmp_path):
    state = RunState(tmp_path, {"seed": 0})
    state.save("pruned-00000", {"block": 0}, {"mask": torch.ones(2)})
    (tmp_path / "model").mkdir()
    for scrap in (tmp_path / ".masks.safetensors.7.tmp", tmp_path / "model" / ".README.md.7.tmp"):
        scrap.write_text("half")
    (tmp_path / "plan.json").write_text("{}")
    state.close()
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["model", "plan.json"]


def test_a_process_that_does_not_write_keeps_and_finds_nothing(tmp_path):
    RunState(tmp_path, {"seed": 0}).save("inputs", ["a"])
    others = OthersState(tmp_path)
    others.begin()
    others.save("inputs", ["b"])
    assert not others.resumes
    assert not others.has("inputs")
    assert others.load("inputs") is None
    assert list(others.numbered("inputs")) == []
    others.close()
    assert RunState(tmp_path, {"seed": 0}).load("inputs") == (["a"], {})
    elsewhere = OthersState(tmp_path / "elsewhere")
    elsewhere.folder.mkdir(parents=True)  # hidden states that did not fit waited there
    elsewhere.close()
    assert not (tmp_path / "elsewhere" / FOLDER).exists()


def test_a_run_of_an_older_version_is_continued_if_all_that_it_did_not_know_is_off(tmp_path):
    def fingerprint(**method):
        return {"settings": {"method": asdict(Method(**method)), "seed": 0}}

    old = fingerprint(tokens="all", allocation="uniform")
    for name in ("reconstruct", "refit"):
        del old["settings"]["method"][name]
    old["settings"]["method"]["polish"] = {"steps": 0, "lr": 1e-4}
    RunState(tmp_path, old).begin()
    assert RunState(tmp_path, fingerprint(tokens="all", allocation="uniform")).resumes
    with pytest.raises(InputError, match=r"reconstruct\.steps: 0 -> 3\): run it as it was started"):
        RunState(tmp_path, fingerprint(tokens="all", allocation="uniform", reconstruct=Reconstruct(3)))


def test_a_polished_run_is_not_continued_by_reconstruction(tmp_path):
    old = {"settings": {"method": {"polish": {"steps": 3, "lr": 1e-4}}}}
    RunState(tmp_path, old).begin()
    with pytest.raises(InputError, match=r"method\.polish\.steps: 3 -> nothing.*delete the folder"):
        RunState(tmp_path, {"settings": {"method": asdict(Method(reconstruct=Reconstruct(3, 1e-4)))}})
