"""State of an unfinished run: complete records or none, and nothing that a killed process had half written."""

import torch

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
