"""mode: one_shot prunes by what the dense model's activations say; methods that read none let nothing pass."""

import lightning as L
import numpy as np
import pytest
import torch

from tamp_lightning.methods.method import Method
from tamp_lightning.stream import MemoryStream

from ..conftest import TAMP, calibration, hashes, run, toys
from ..stream.conftest import make_llava
from .test_literal import amia, diversities, prune_block, unpack

PLAIN = {"tokens": "all", "allocation": "uniform"}


class Loads(L.Callback):
    """Counts what is called for each block."""

    def __init__(self, monkeypatch):
        self.forwards = []
        forward = MemoryStream.load

        def load(stream, index, dense=False):
            block = forward(stream, index, dense)
            if not hasattr(block, "watched"):
                block.watched = block.register_forward_hook(lambda *_: self.forwards.append(index))
            return block

        monkeypatch.setattr(MemoryStream, "load", load)


@pytest.mark.parametrize("choices", [{}, PLAIN])
def test_masks_are_those_of_the_dense_activations(choices):
    samples, method = toys("tpp"), Method(mode="one_shot", **choices)
    pruned = run(make_llava(), calibration(samples, 3), method)
    plan = {name: row["kept"] for name, row in pruned.linears.items()}
    pick = (lambda *_: slice(None)) if choices else amia
    for k in range(3):
        for name, mask in prune_block(make_llava(), k, samples, plan, pick).items():
            np.testing.assert_array_equal(unpack(pruned, name), mask, err_msg=name)
    if not choices:
        assert pruned.scores == pytest.approx(diversities(make_llava(), samples), abs=1e-5)
    sequential = run(make_llava(), calibration(samples, 3), Method(**choices))
    assert {n: row["kept"] for n, row in sequential.linears.items()} == plan
    assert hashes(sequential) != hashes(pruned)
    first = [name for name in plan if ".layers.0." in name]
    assert {n: hashes(sequential)[n] for n in first} == {n: hashes(pruned)[n] for n in first}


@pytest.mark.parametrize("method", [Method(mode="one_shot"), Method(mode="one_shot", **PLAIN)])
def test_every_block_is_passed_once(method, monkeypatch):
    watch = Loads(monkeypatch)
    model = make_llava()
    pruned = run(model, calibration(toys("tp"), 1), method)
    walk = [k for k in watch.forwards if k is not None]
    assert walk[-6:] == [0, 0, 1, 1, 2, 2] or sorted(walk)[-2:] == [2, 2]
    assert set(pruned.seconds) == {"prune"}
    for name in pruned.linears:
        weight = model.get_parameter(f"{name}.weight")
        assert torch.equal(weight != 0, torch.from_numpy(unpack(pruned, name)))


def test_nothing_passes_where_nobody_looks(monkeypatch):
    watch = Loads(monkeypatch)
    blind = run(make_llava(), calibration(toys("tp"), 1), Method(solver="magnitude", **PLAIN))
    assert watch.forwards == []
    measured = Method(tokens="all", solver="magnitude", allocation="das")
    run(make_llava(), calibration(toys("tp"), 1), measured)
    assert watch.forwards
    for mode in ("sequential", "one_shot"):
        again = run(make_llava(), calibration(toys("tpp"), 2), Method(solver="magnitude", mode=mode, **PLAIN))
        assert hashes(again) == hashes(blind)  # whatever the samples


def test_one_shot_with_measured_scores_uses_the_budget_of_the_measure_walk():
    samples = toys("tp")
    pruned = run(make_llava(), calibration(samples, 2), Method(mode="one_shot"))
    assert pruned.scores == run(make_llava(), calibration(samples, 2), TAMP).scores
