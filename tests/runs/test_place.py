"""Where a run writes and computes."""

from types import SimpleNamespace

import pytest
import torch

from tamp_lightning.runs.place import Place
from tamp_lightning.runs.state import OthersState, RunState


def trainer(is_first):
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    return SimpleNamespace(strategy=strategy, is_global_zero=is_first, world_size=2)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_place_is_what_the_trainer_says(tmp_path, is_first):
    place = Place.find(tmp_path, "float16", trainer(is_first))
    assert (place.folder.path, place.is_first, place.processes) == (tmp_path, is_first, 2)
    assert (place.device, place.dtype) == (torch.device("cpu"), torch.float16)


def test_only_the_first_process_keeps_a_state_with_a_fingerprint(tmp_path):
    first, other = (Place.find(tmp_path / "run", "float32", trainer(own)).state(tmp_path, {}) for own in (True, False))
    assert type(first) is RunState
    assert first.fingerprint["compute"] == {"dtype": "float32", "device": "cpu", "processes": 2}
    assert type(other) is OthersState
