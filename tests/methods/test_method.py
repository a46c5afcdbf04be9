import dataclasses

import pytest
import torch
from jsonargparse import ArgumentParser

from tamp_lightning.methods.allocation import Constant, Das, Uniform
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.patterns import Row
from tamp_lightning.methods.solvers import Wanda
from tamp_lightning.methods.tokens import All, Amia


def test_default_is_tamp():
    method = Method()
    assert method.sparsity == 0.5
    rules = (method.token_rule, method.allocation_rule, method.solver_rule, method.pattern_rule)
    assert rules == (Amia(), Das(), Wanda(), Row())


def test_names_choose_and_sections_set_constants():
    method = Method(tokens="all", allocation="uniform")
    assert (method.token_rule, method.allocation_rule) == (All(), Uniform())
    method = Method(amia=Amia(neighbors=5), allocation="constant", constant=Constant(cap_margin=0.2))
    assert method.token_rule == Amia(neighbors=5)
    assert method.allocation_rule == Constant(cap_margin=0.2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.sparsity = 0.6


@pytest.mark.parametrize("sparsity", [1.0, -0.1, float("nan"), 50])
def test_refuses_impossible_sparsity(sparsity):
    with pytest.raises(ValueError, match=f"sparsity is {sparsity}"):
        Method(sparsity=sparsity)


def test_refuses_unknown_names_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"tokens is 'amai'; it has to be one of all, amia. Did you mean amia?"
    ):
        Method(tokens="amai")
    with pytest.raises(ValueError, match="pattern is '2:4'; it has to be one of row"):
        Method(pattern="2:4")


def test_refuses_a_floor_above_the_sparsity_only_where_it_is_used():
    with pytest.raises(ValueError, match=r"das.floor is 0.6"):
        Method(sparsity=0.5, das=Das(floor=0.6))
    Method(sparsity=0.5, das=Das(floor=0.6), allocation="uniform")


def test_solver_and_pattern_make_the_wanda_mask():
    weight, sq_norm = torch.tensor([[1.0, -3, 2], [0.5, 1, -1]]), torch.tensor([16.0, 1, 1])
    method = Method()
    scores = method.solver_rule.scores(weight, sq_norm)
    assert scores.tolist() == [[4, 3, 2], [2, 1, 1]]
    assert method.pattern_rule.mask(scores, 3).tolist() == [[True, True, False], [True, False, False]]
    assert Wanda.needs_statistics


def test_command_line_reads_it_and_shows_the_constants():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--method", type=Method, default=Method())
    parsed = parser.parse_args(["--method.tokens=amia", "--method.amia.neighbors=5", "--method.sparsity=0.6"])
    assert parser.instantiate(parsed).method == Method(sparsity=0.6, amia=Amia(neighbors=5))
