"""Every token rule, allocation, solver and pattern that is registered, on the device and on the CPU."""

import pytest
import torch

from tamp_lightning.methods.allocation import ALLOCATIONS
from tamp_lightning.methods.patterns import PATTERNS, parse_pattern
from tamp_lightning.methods.solvers import SOLVERS
from tamp_lightning.methods.statistics import Statistics, mixed
from tamp_lightning.methods.tokens import TOKENS, TokenContext

from .test_ops import ATTENTION, CROSS, DRIFT, FLIPPED, HESSIAN, INPUTS, MODALITY, OTHER, SQUARES, VALID, WEIGHT, here

KEPT = WEIGHT.numel() // 2
ALLOCATED = ("outputs", "inputs", "weights")
"""What scores of allocations that compute with tensors of the device rest on; the loss is in test_runs."""


def seen(at) -> TokenContext:
    return TokenContext(
        at(MODALITY), at(VALID), outputs=at(INPUTS), attention=at(ATTENTION), drift=at(DRIFT), mean_drift=0.4
    )


@pytest.mark.parametrize("name", list(TOKENS))
def test_token_rules_choose_alike(name, there):
    rule = TOKENS.find(name)()
    found, expected = rule.weights(seen(there)).cpu(), rule.weights(seen(here))
    assert found.dtype == expected.dtype
    assert (found != expected).float().mean() <= FLIPPED


@pytest.mark.parametrize("per", ["linear", "input", "block"])
def test_a_block_of_linears_chooses_alike(per, there):
    rule = TOKENS.find("amia")(per=per)

    def choose(at):
        return rule.by_linear(seen(at), [{"q": at(INPUTS), "k": at(OTHER)}, {"o": at(OTHER)}])

    found, expected = choose(there), choose(here)
    assert found.keys() == expected.keys()
    for name, picked in expected.items():
        assert (found[name].cpu() != picked).float().mean() <= FLIPPED


def score(rule, at):
    if rule.basis == "outputs":
        return rule.combine(rule.score(at(INPUTS), at(MODALITY), at(VALID)).cpu())
    return rule.block_score([at(WEIGHT.abs()), at(OTHER[0].abs())])


@pytest.mark.parametrize("name", [name for name in ALLOCATIONS if ALLOCATIONS.find(name).basis in ALLOCATED])
def test_allocations_score_alike(name, there):
    rule = ALLOCATIONS.find(name)()
    assert score(rule, there) == pytest.approx(score(rule, here), rel=1e-5)


def statistics(at) -> Statistics:
    return Statistics(SQUARES, 300.0, at(HESSIAN), at(HESSIAN + 0.1 * CROSS @ CROSS.T / 100), 400.0)


@pytest.mark.parametrize("name", list(SOLVERS))
@pytest.mark.parametrize("pattern", [*PATTERNS, "2:4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_solvers_prune_alike(name, pattern, dtype, there):
    rule, where = SOLVERS.find(name)(), PATTERNS.find(pattern)() if pattern in PATTERNS else parse_pattern(pattern)
    weight, mask = rule.solve(there(WEIGHT.to(dtype)), statistics(there), KEPT, where)
    expected = rule.solve(WEIGHT.to(dtype), statistics(here), KEPT, where)
    assert weight.device == mask.device == there(WEIGHT).device
    assert int(mask.sum()) == int(expected[1].sum()) == KEPT
    assert (mask.cpu() != expected[1]).float().mean() <= (FLIPPED if rule.needs == "hessian" else 0)
    if torch.equal(mask.cpu(), expected[1]):
        torch.testing.assert_close(weight.cpu(), expected[0], rtol=1e-4 if dtype == torch.float32 else 1e-2, atol=1e-4)


def test_modalities_are_mixed_alike(there):
    def mix(at):
        parts = {k: Statistics(SQUARES * (k + 1), 100.0, at(HESSIAN * (k + 1)), None, 100.0) for k in range(2)}
        return mixed(parts, {0: 1.0, 1: 0.3})

    torch.testing.assert_close(mix(there).hessian.cpu(), mix(here).hessian)
    torch.testing.assert_close(mix(there).sq_norm, mix(here).sq_norm)
