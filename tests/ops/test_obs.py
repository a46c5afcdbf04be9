from pathlib import Path

import numpy as np
import pytest
import torch

from tamp_lightning.ops.masks import row_mask
from tamp_lightning.ops.obs import sparsegpt
from tamp_lightning.ops.scores import wanda

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "methods.npz")


def golden(case):
    weight, inputs, pruned = (torch.from_numpy(GOLDENS[f"sgpt{case}/{k}"]) for k in ("W", "X", "pruned"))
    return weight, inputs, pruned


def loss(weight, other, inputs):
    return (inputs @ (weight - other).T).square().sum().item()


def correlated(o=6, c=24, tokens=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(c, c, generator=generator) / c**0.5
    inputs = torch.randn(tokens, c, generator=generator) @ (mix + torch.eye(c))
    return torch.randn(o, c, generator=generator), inputs


@pytest.mark.parametrize(("case", "options"), [(0, {"sparsity": 0.5}), (2, {"pattern": (2, 4)})])
def test_goldens(case, options):
    weight, inputs, pruned = golden(case)
    got, mask = sparsegpt(weight, inputs.T @ inputs, **options)
    # the reference drops one weight more per block than half
    assert mask.sum() == (pruned != 0).sum()
    assert ((got == 0) == (pruned == 0)).float().mean() >= 0.995
    assert loss(weight, got, inputs) == pytest.approx(loss(weight, pruned, inputs), rel=0.01)


def test_a_fixed_mask_is_respected_and_its_loss_is_smaller_than_without_update():
    weight, inputs = correlated()
    fixed = row_mask(wanda(weight, inputs.square().sum(0)), weight.numel() // 2)
    for block in (1, 5, 128):
        got, mask = sparsegpt(weight, inputs.T @ inputs, mask=fixed, block=block)
        assert torch.equal(mask, fixed)
        assert torch.equal(got != 0, fixed)
        assert loss(weight, got, inputs) < loss(weight, weight * fixed, inputs)


def test_one_pruned_weight_is_compensated_as_least_squares_would():
    """The first column of each row goes; the best other weights are a regression on the remaining inputs."""
    weight, inputs = correlated(o=2, c=4)
    fixed = torch.ones(2, 4, dtype=torch.bool)
    fixed[:, 0] = False
    got, _ = sparsegpt(weight, inputs.T @ inputs, mask=fixed, damp=0.0)
    best = torch.linalg.lstsq(inputs[:, 1:], inputs @ weight.T).solution.T
    torch.testing.assert_close(got[:, 1:], best, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.77])
@pytest.mark.parametrize("block", [5, 128])
def test_counts_are_exact_over_uneven_blocks(sparsity, block):
    weight, inputs = correlated(o=7, c=23)
    kept = round(7 * 23 * (1 - sparsity))
    got, mask = sparsegpt(weight.bfloat16(), inputs.T @ inputs, kept=kept, block=block)
    assert mask.sum() == kept
    assert got.dtype == torch.bfloat16
    assert not got[~mask].any()
    if sparsity == 0:
        assert torch.equal(got, weight.bfloat16())


def test_pattern_holds_when_the_block_is_not_a_multiple_of_it():
    weight, inputs = correlated()
    _, mask = sparsegpt(weight, inputs.T @ inputs, pattern=(2, 4), block=6)
    assert (mask.unflatten(1, (-1, 4)).sum(-1) == 2).all()


def test_inputs_that_are_never_active_lose_their_weights():
    weight, inputs = correlated()
    inputs[:, 3] = 0
    hessian = inputs.T @ inputs
    got, _ = sparsegpt(weight, hessian, sparsity=0.5)
    assert not got[:, 3].any()
    assert got.isfinite().all()
    assert hessian[3, 3] == 0


def test_refuses_in_one_line():
    weight, eye = torch.ones(2, 6), torch.eye(6)
    for options in ({}, {"sparsity": 0.5, "pattern": (2, 4)}):
        with pytest.raises(ValueError, match="exactly one of"):
            sparsegpt(weight, eye, **options)
    with pytest.raises(ValueError, match="2:4 does not fit a width of 6"):
        sparsegpt(weight, eye, pattern=(2, 4))
    with pytest.raises(ValueError, match=r"sparsity is 1.0"):
        sparsegpt(weight, eye, sparsity=1.0)
    with pytest.raises(ValueError, match="kept is 13"):
        sparsegpt(weight, eye, kept=13)
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        sparsegpt(weight, eye * float("inf"), sparsity=0.5)
    assert sparsegpt(weight, eye, sparsity=0.0)[1].all()
    with pytest.raises(ValueError, match="hessian has shape"):
        sparsegpt(weight, torch.eye(5), sparsity=0.5)
    with pytest.raises(ValueError, match="mask has shape"):
        sparsegpt(weight, eye, mask=torch.ones(6, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="not positive definite"):
        sparsegpt(weight, -eye, sparsity=0.5)
