"""2:4 on sparse units: conversion, padding and choice with units that a CPU imitates; on a GPU with the real ones."""

import json
import os

import pytest
import torch
from torch import nn

from tamp_lightning.kernels import semi_structured
from tamp_lightning.kernels.semi_structured import (
    FILE,
    Algorithms,
    SemiStructuredLinear,
    speed_up_linears,
)
from tamp_lightning.kernels.sparse_units import CuSparseLt

from .imitation import Imitation, two_of_four


def layers(*shapes):
    model = nn.Sequential(*(nn.Linear(columns, rows) for rows, columns in shapes)).bfloat16()
    for layer in model:
        layer.weight.data = two_of_four(*layer.weight.shape)
    return model


def test_linears_that_gain_are_converted_and_give_the_same(tmp_path):
    model = layers((40, 64), (64, 40), (33, 64))  # 40 columns are no multiple of 32: dense
    before = {key: value.clone() for key, value in model.state_dict().items()}
    inputs = [torch.randn(*size, 64).bfloat16() for size in [(1,), (2, 3), (700,), (0,)]]
    expected = [model(x) for x in inputs]
    units = Imitation({(64, 64): 2.0, (64, 40): 2.0})
    assert speed_up_linears(model, Algorithms(tmp_path / FILE, units)) == {"sparse": 2, "dense": 0}
    assert [type(layer) for layer in model] == [SemiStructuredLinear, nn.Linear, SemiStructuredLinear]
    for x, right in zip(inputs, expected, strict=True):
        largest = float(right.detach().abs().max()) if x.numel() else 1.0
        assert torch.allclose(model(x), right, rtol=0.02, atol=0.01 * largest)  # the bias is added to a rounded product
        assert model(x).shape == right.shape
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert "64, 40, bias=True, 2:4" in repr(model)


def test_what_does_not_gain_stays_dense():
    model = layers((64, 64), (96, 64))
    units = Imitation({(64, 64): 1.04, (96, 64): 1.06})
    algorithms = Algorithms(semi_structured.Path(os.devnull) / "nowhere", units)
    assert speed_up_linears(model, algorithms) == {"sparse": 1, "dense": 1}
    assert type(model[0]) is nn.Linear
    assert type(model[1]) is SemiStructuredLinear


def test_each_number_of_inputs_has_its_algorithm(tmp_path):
    model, units = layers((64, 64)), Imitation({(64, 64): 2.0})
    speed_up_linears(model, Algorithms(tmp_path / FILE, units))
    for count, algorithm in [(1, 1), (512, 1), (2047, 1), (2048, 4), (9000, 4)]:
        model(torch.randn(count, 64).bfloat16())
        assert units.used[-1] == algorithm


def test_a_search_is_made_once_per_shape_and_device(tmp_path):
    shapes = [(64, 64), (64, 64), (96, 64)]
    first = Imitation({(64, 64): 2.0, (96, 64): 1.5})
    speed_up_linears(layers(*shapes), Algorithms(tmp_path / FILE, first))
    assert len(first.searched) == 4  # two shapes, two numbers of inputs
    written = json.loads((tmp_path / FILE).read_text())
    assert written["device"] == "a device"
    assert written["shapes"]["64x64"]["512"] == {"algorithm": 1, "dense": 1.0, "sparse": 0.5}
    again, other = Imitation(first.gains), Imitation(first.gains, "another device")
    assert speed_up_linears(layers(*shapes), Algorithms(tmp_path / FILE, again)) == {"sparse": 3, "dense": 0}
    assert not again.searched
    speed_up_linears(layers(*shapes), Algorithms(tmp_path / FILE, other))
    assert len(other.searched) == 4


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"device": "a device", "shapes": {"64x64": {"512": {}}}}', '{"device": "a device", "shapes": 3}'],
)
def test_a_damaged_file_is_not_believed(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    units = Imitation({(64, 64): 2.0})
    speed_up_linears(layers((64, 64)), Algorithms(tmp_path / FILE, units))
    assert len(units.searched) == 2
    assert "sparse" in json.loads((tmp_path / FILE).read_text())["shapes"]["64x64"]["2048"]


def test_what_cannot_be_is_refused(tmp_path):
    algorithms = Algorithms(tmp_path / FILE, Imitation({(64, 64): 2.0}))
    with pytest.raises(ValueError, match="no linear keeps at most 2 of every 4 weights: prune with 2:4"):
        speed_up_linears(nn.Sequential(nn.Linear(64, 64)), algorithms)
    with pytest.raises(ValueError, match=r"takes bfloat16, not torch.float16: load with dtype=torch.bfloat16"):
        speed_up_linears(layers((64, 64)).half(), algorithms)
    model = layers((64, 64))
    speed_up_linears(model, algorithms)
    with pytest.raises(ValueError, match="stays in bfloat16 where it is"):
        model.float()
    model.to(torch.bfloat16)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_one_line_says_so():
    with pytest.raises(ValueError, match="needs an NVIDIA GPU; this machine has none"):
        CuSparseLt()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("count", [1, 7, 64, 700, 3000])
def test_on_a_gpu(tmp_path, count, monkeypatch):
    monkeypatch.setattr(semi_structured, "GAIN", 0.0)
    model = layers((1000, 1024), (2048, 992)).cuda()
    model[1].weight.data = two_of_four(2048, 992).cuda()
    first = model[0]
    inputs = torch.randn(count, 1024, device="cuda", dtype=torch.bfloat16)
    expected, weight = first(inputs), first.weight.detach().clone()
    speed_up_linears(model, Algorithms(tmp_path / FILE, CuSparseLt()))
    assert type(model[0]) is SemiStructuredLinear
    assert torch.allclose(model[0](inputs), expected, rtol=0.02, atol=0.5)
    assert torch.equal(model[0].weight, weight)
