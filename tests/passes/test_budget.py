"""The budget is met to the weight, counted from masks."""

import pytest
import torch

from tamp_lightning.methods.method import Method
from tamp_lightning.passes.trainer import _check_plan

from ..conftest import calibration, run, toys
from ..stream.conftest import make_llava


def popcount(bits):
    return sum(int(byte).bit_count() for byte in bits)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("allocation", ["uniform", "constant", "das"])
def test_kept_weights_sum_to_the_rounded_target(allocation, sparsity):
    model = make_llava()
    pruned = run(model, calibration(toys("pt"), 2), Method(sparsity, tokens="all", allocation=allocation))
    total = sum(row["size"] for row in pruned.linears.values())
    assert total == 3 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 48)
    assert sum(popcount(bits) for bits in pruned.masks.values()) == round(total * (1 - sparsity))
    assert pruned.sparsity == pytest.approx(sparsity, abs=0.51 / total)
    for name, row in pruned.linears.items():
        assert popcount(pruned.masks[name]) == row["kept"]
        assert int(torch.count_nonzero(model.get_submodule(name).weight)) == row["kept"]
        if allocation != "uniform":
            assert 1 - row["kept"] / row["size"] <= min(sparsity + 0.1, 1) + 1 / row["size"]


def test_a_checkpoints_own_zeros_do_not_count_as_pruned():
    model = make_llava()
    with torch.no_grad():
        for block in model.get_decoder().layers:
            block.mlp.up_proj.weight[:, :8] = 0
    pruned = run(model, calibration(toys("pt"), 2), Method(0.1, tokens="all", allocation="uniform"))
    name = "model.language_model.layers.0.mlp.up_proj"
    assert pruned.linears[name]["kept"] == pytest.approx(0.9 * 32 * 48, abs=1)
    assert int(torch.count_nonzero(model.get_submodule(name).weight)) == 24 * 48
    assert pruned.sparsity == pytest.approx(0.1, abs=1e-4)


def test_a_linear_that_is_not_as_planned_fails_the_run():
    _check_plan({"a": 3, "b": 4}, {"a": {"kept": 3}, "b": {"kept": 4}})
    for report in ({"a": {"kept": 3}, "b": {"kept": 5}}, {"a": {"kept": 3}}):
        with pytest.raises(RuntimeError, match="1 linears are not pruned as planned, such as b"):
            _check_plan({"a": 3, "b": 4}, report)
