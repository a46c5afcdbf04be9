import dataclasses
import math

import pytest
import torch
from jsonargparse import ArgumentParser

from tamp_lightning.methods.allocation import Constant, Das, Ecoflap, Uniform
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.options import Correction, Reconstruct, Refit
from tamp_lightning.methods.patterns import Row
from tamp_lightning.methods.ratios import Alpha, DepthRamp, Dlp, Owl
from tamp_lightning.methods.solvers import SOLVERS, Admm, SparseGpt, Wanda
from tamp_lightning.methods.statistics import Statistics
from tamp_lightning.methods.tokens import All, Amia, Atv, ModalityMix


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
    with pytest.raises(ValueError, match=r"tokens is 'amai'; it has to be one of all, amia, .*Did you mean amia?"):
        Method(tokens="amai")
    with pytest.raises(ValueError, match="pattern is 'rows'; it has to be one of row, matrix, or n:m in quotes"):
        Method(pattern="rows")


def test_refuses_a_floor_above_the_sparsity_only_where_it_is_used():
    with pytest.raises(ValueError, match=r"das.floor is 0.6"):
        Method(sparsity=0.5, das=Das(floor=0.6))
    Method(sparsity=0.5, das=Das(floor=0.6), allocation="uniform")


REFUSED = [
    ({"pattern": "2:4"}, "allocation is das; pattern '2:4' fixes every linear's sparsity: set allocation: uniform"),
    (
        {"pattern": "1:4", "allocation": "uniform"},
        "sparsity is 0.5; pattern '1:4' removes 0.75 of the weights: set that",
    ),
    ({"solver": "magnitude"}, "tokens is amia; solver: magnitude reads no activations, .*: set tokens: all"),
    ({"tokens": "modality_mix", "correction": Correction(tau=0.5)}, "tokens is modality_mix; correction needs one set"),
    ({"allocation": "owl", "owl": Owl(floor=0.7)}, "owl.floor is 0.7; it has to be at most sparsity"),
    ({"mode": "oneshot"}, "mode is 'oneshot'; it has to be sequential or one_shot"),
    ({"mode": "one_shot", "tokens": "atv"}, "tokens is atv; mode: one_shot passes every block once"),
    (
        {"solver": "sparsegpt", "sparsegpt": SparseGpt(values="int8"), "reconstruct": Reconstruct(steps=1)},
        "reconstruct.steps is 1; it moves weights off the numbers that sparsegpt.values rounds to: set reconstruct",
    ),
    (
        {"solver": "admm", "admm": Admm(values="int4"), "refit": Refit(steps=10)},
        "refit.steps is 10; it moves weights off the numbers that admm.values rounds to: set refit.steps: 0 or",
    ),
    (
        {"solver": "admm", "admm": Admm(values="int4"), "pattern": "3:6", "allocation": "uniform"},
        "pattern is '3:6'; admm.values rounds groups of 128 columns, of which 6 is no divisor: set admm.values: none",
    ),
    (
        {"mode": "one_shot", "reconstruct": Reconstruct(steps=1)},
        "reconstruct.steps is above 0; it needs pruned blocks before",
    ),
]


@pytest.mark.parametrize(("choices", "message"), REFUSED)
def test_what_makes_no_sense_is_refused_with_the_remedy(choices, message):
    with pytest.raises(ValueError, match=message) as error:
        Method(**choices)
    assert "\n" not in str(error.value)


def test_one_shot_refuses_hessians_with_the_memory_they_would_take():
    shapes = {"q": (4096, 4096), "down": (4096, 14336)}
    with pytest.raises(ValueError, match=r"solver is sparsegpt; .* all 2 linears would take up to 0.8 GiB at once"):
        Method(mode="one_shot", solver="sparsegpt").check(shapes)
    fitted = r"refit.steps is 2; .* set mode: sequential, or refit.steps: 0\.$"
    with pytest.raises(ValueError, match=fitted):
        Method(mode="one_shot", refit=Refit(steps=2)).check(shapes)
    with pytest.raises(ValueError, match=r"or solver: wanda or ria and refit.steps: 0\.$"):
        Method(mode="one_shot", solver="admm", refit=Refit(steps=2)).check(shapes)
    Method(mode="one_shot").check(shapes)
    Method(solver="sparsegpt").check(shapes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Owl(m=0), "owl.m is 0"),
        (lambda: Owl(lam=-1), "owl.lam is -1"),
        (lambda: Dlp(alpha=math.nan), "dlp.alpha is nan"),
        (lambda: Dlp(floor=1), "dlp.floor is 1"),
        (lambda: Alpha(epsilon=1.1), "alpha.epsilon is 1.1"),
        (lambda: DepthRamp(width=-0.1), "depth_ramp.width is -0.1"),
        (lambda: Ecoflap(samples=0), "ecoflap.samples is 0"),
        (lambda: Ecoflap(eps=0), "ecoflap.eps is 0"),
        (lambda: Atv(alpha=-1), "atv.alpha is -1"),
        (lambda: ModalityMix(lambdas=()), "modality_mix.lambdas is"),
        (lambda: ModalityMix(held_out=0.6), "modality_mix.held_out is 0.6"),
        (lambda: Correction(tau=2), "correction.tau is 2"),
        (lambda: Correction(damp=0), "correction.damp is 0"),
        (lambda: Reconstruct(steps=-1), "reconstruct.steps is -1"),
        (lambda: Reconstruct(lr=0), "reconstruct.lr is 0"),
        (lambda: Reconstruct(weigh="text"), "reconstruct.weigh is 'text'"),
        (lambda: Refit(steps=-1), "refit.steps is -1"),
        (lambda: Refit(damp=0), "refit.damp is 0"),
        (lambda: Refit(share=2), "refit.share is 2"),
    ],
)
def test_impossible_constants_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("solver", "prunes"), [("magnitude", "magnitude"), ("ria", "ria"), ("admm", "wanda")])
def test_few_tokens_leave_the_solver_that_needs_no_hessian(solver, prunes):
    """A column's norm is large where its weights are small, so that solvers keep different ones."""
    weight = torch.tensor([[4.0, 3.0, 2.0, 1.0], [1.0, -5.0, 2.0, 4.0]])
    few = Statistics(sq_norm=torch.tensor([1.0, 4.0, 9.0, 100.0], dtype=torch.float64), weight_sum=3.0, few=True)
    found = Method(tokens="all", solver=solver, refit=Refit(steps=5)).solve(weight, few, 4)
    wanted = SOLVERS[prunes]().solve(weight, few, 4, Row())
    assert all(map(torch.equal, found, wanted))
    assert (
        len(
            {
                tuple(SOLVERS[name]().solve(weight, few, 4, Row())[1].flatten().tolist())
                for name in ("magnitude", "wanda")
            }
        )
        == 2
    )


def test_what_a_method_asks_of_the_engine():
    plain = {"tokens": "all", "allocation": "uniform"}
    assert Method(**plain, solver="magnitude").statistics == "nothing"
    assert Method(**plain, solver="magnitude", correction=Correction(tau=0.1)).statistics == "hessian"
    assert (Method().statistics, Method(solver="admm").statistics) == ("diagonal", "hessian")
    walks = {name: bool(Method(allocation=name).measure_stages) for name in ("das", "owl", "dlp", "ecoflap", "alpha")}
    assert walks == {"das": True, "owl": True, "dlp": True, "ecoflap": True, "alpha": False}
    assert Method(tokens="atv").prune_stages == ("drift", "collect")
    assert Method(tokens="modality_mix").prune_stages == ("collect", "mix")
    assert Method(solver="sparsegpt").blends
    fitted = Method(refit=Refit(steps=10))
    assert (fitted.statistics, fitted.blends, Method().blends) == ("hessian", True, False)
    assert not Method(refit=Refit(steps=10, share=0)).blends
    assert not Method(solver="sparsegpt", sparsegpt=SparseGpt(share=0)).blends


def test_solver_and_pattern_make_the_wanda_mask():
    weight, sq_norm = torch.tensor([[1.0, -3, 2], [0.5, 1, -1]]), torch.tensor([16.0, 1, 1])
    method = Method()
    scores = method.solver_rule.scores(weight, sq_norm)
    assert scores.tolist() == [[4, 3, 2], [2, 1, 1]]
    assert method.pattern_rule.mask(scores, 3).tolist() == [[True, True, False], [True, False, False]]
    assert Wanda.needs == "diagonal"


def test_command_line_reads_it_and_shows_the_constants():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--method", type=Method, default=Method())
    parsed = parser.parse_args(["--method.tokens=amia", "--method.amia.neighbors=5", "--method.sparsity=0.6"])
    assert parser.instantiate(parsed).method == Method(sparsity=0.6, amia=Amia(neighbors=5))
