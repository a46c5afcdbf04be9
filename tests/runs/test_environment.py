"""What a run is computed in and made with."""

import pytest
import torch

from tamp_lightning.runs import environment as module
from tamp_lightning.runs.environment import compute_dtype, environment


@pytest.mark.parametrize(
    ("name", "device", "has_bfloat16", "expected"),
    [
        ("auto", "cpu", False, torch.float32),
        ("auto", None, False, torch.float32),
        ("auto", "cpu", True, None),
        ("auto", "cuda", False, None),
        ("bfloat16", "cpu", False, torch.bfloat16),
        ("float32", "cuda", True, torch.float32),
    ],
)
def test_dtype_to_compute_in(monkeypatch, name, device, has_bfloat16, expected):
    monkeypatch.setattr(module, "_cpu_has_bfloat16", lambda: has_bfloat16)
    assert compute_dtype(name, None if device is None else torch.device(device)) is expected


def test_versions_are_those_of_the_libraries():
    found = environment()
    assert found["packages"]["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
