import math

import pytest
import torch

from tamp_lightning.methods.patterns import Matrix, NofM, Row
from tamp_lightning.methods.solvers import Admm, Magnitude, Ria, SparseGpt, Wanda
from tamp_lightning.methods.statistics import Statistics, mixed
from tamp_lightning.ops.admm import admm
from tamp_lightning.ops.hessian import blend
from tamp_lightning.ops.obs import sparsegpt
from tamp_lightning.ops.rounding import BITS, from_codes, round_weight

GENERATOR = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(8, 16, generator=GENERATOR)
INPUTS = torch.randn(60, 16, generator=GENERATOR)
HESSIAN, PART = INPUTS.T @ INPUTS, INPUTS[:5].T @ INPUTS[:5]
STATISTICS = Statistics(HESSIAN.diagonal().double(), 60.0, HESSIAN)


@pytest.mark.parametrize("solver", [Magnitude(), Wanda(), Ria(), SparseGpt(), Admm()])
@pytest.mark.parametrize(("pattern", "kept"), [(Row(), 51), (Matrix(), 51), (NofM(1, 4), 32)])
def test_solvers_keep_what_they_are_told_and_leave_the_weight_alone(solver, pattern, kept):
    before = WEIGHT.clone()
    weight, mask = solver.solve(WEIGHT, STATISTICS, kept, pattern)
    assert int(mask.sum()) == kept
    assert not weight[~mask].any()
    assert torch.equal(WEIGHT, before)
    moves = bool((weight[mask] != WEIGHT[mask]).any())
    assert moves == (solver.needs == "hessian")


def test_constants_reach_the_ops():
    weight, mask = SparseGpt(block=4, damp=0.3).solve(WEIGHT, STATISTICS, 51, Row())
    expected = sparsegpt(WEIGHT, HESSIAN, kept=51, block=4, damp=0.3)
    assert torch.equal(weight, expected[0])
    assert torch.equal(mask, expected[1])
    constants = {"iterations": 7, "mask_iterations": 3, "schedule": "constant", "rho": 0.5, "damp": 0.2}
    got, wanted = Admm(**constants).solve(WEIGHT, STATISTICS, 51, Row()), admm(WEIGHT, HESSIAN, kept=51, **constants)
    assert all(map(torch.equal, got, wanted))
    assert not torch.equal(
        Ria(power=2).scores(WEIGHT, STATISTICS.diagonal()), Ria().scores(WEIGHT, STATISTICS.diagonal())
    )


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_values_are_rounded_by_the_solver(name):
    for solver in (SparseGpt(values=name), Admm(values=name)):
        weight, mask = solver.solve(WEIGHT, STATISTICS, 51, Row())
        assert torch.equal(from_codes(*round_weight(weight, BITS[name]), torch.float32), weight)
        assert int(mask.sum()) == 51
        assert not weight[~mask].any()
        plain = type(solver)().solve(WEIGHT, STATISTICS, 51, Row())
        assert torch.equal(mask, plain[1])
        assert not torch.equal(weight, plain[0])


def test_few_tokens_are_blended_with_all_and_all_tokens_with_nothing():
    few = Statistics(PART.diagonal().double(), 5.0, PART, HESSIAN, 60.0)
    assert torch.equal(few.blended(0.3), blend(PART, HESSIAN, 0.3, (5, 60)))
    assert few.blended(0.0) is PART
    assert Statistics(None, 60.0, HESSIAN, HESSIAN, 60.0).blended(0.3) is HESSIAN
    plain = SparseGpt(share=0.0).solve(WEIGHT, few, 51, Row())[0]
    assert not torch.equal(plain, SparseGpt().solve(WEIGHT, few, 51, Row())[0])


def test_mixing_modalities():
    text = Statistics(torch.tensor([2.0, 4.0]).double(), 2.0, torch.eye(2) * 2)
    image = Statistics(torch.tensor([8.0, 0.0]).double(), 4.0, torch.ones(2, 2) * 4)
    none = Statistics(torch.zeros(2).double(), 0.0)
    both = mixed({0: text, 1: image, 2: none}, {0: 1.0, 1: 0.5, 2: 0.5})
    assert both.diagonal().tolist() == [1 + 0.5 * 2, 2]
    assert both.hessian.tolist() == [[1.5, 0.5], [0.5, 1.5]]
    assert both.hessian_all_tokens.tolist() == [[6, 4], [4, 6]]
    assert (both.weight_sum, both.count) == (1.5, 6.0)
    assert mixed({0: text, 1: none}, {0: 1.0, 1: 0.5}) is text


def test_missing_statistics_are_named():
    for solver, missing in ((Wanda(), "no statistics"), (SparseGpt(), "no Hessian"), (Admm(), "no Hessian")):
        with pytest.raises(ValueError, match=missing):
            solver.solve(WEIGHT, Statistics(), 51, Row())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ria(power=-1), "ria.power is -1"),
        (lambda: SparseGpt(block=0), "sparsegpt.block is 0"),
        (lambda: SparseGpt(damp=math.nan), "sparsegpt.damp is nan"),
        (lambda: SparseGpt(share=1.5), "sparsegpt.share is 1.5"),
        (lambda: SparseGpt(block=100, values="int8"), "sparsegpt.block is 100; with values: int8 it has to be 128 x n"),
        (lambda: Admm(rho=0), "admm.rho is 0"),
        (lambda: Admm(iterations=-1), "admm.iterations is -1"),
    ],
)
def test_impossible_constants_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
