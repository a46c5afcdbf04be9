import math

import pytest
import torch

from tamp_lightning.ops.correction import corrected_target, layer_error
from tamp_lightning.ops.hessian import weighted_cross, weighted_gram


def drifted(o=5, c=12, tokens=90, seed=0):
    """A weight, dense inputs and the same tokens' inputs after pruning, in float64, and token weights."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(3, tokens // 3, c, generator=generator, dtype=torch.float64)
    mix = torch.eye(c) + 0.2 * torch.randn(c, c, generator=generator)
    pruned = dense @ mix.double() + 0.1 * torch.randn(dense.shape, generator=generator, dtype=torch.float64)
    weight = torch.randn(o, c, generator=generator, dtype=torch.float64)
    return weight, dense, pruned, torch.rand(3, tokens // 3, generator=generator, dtype=torch.float64)


def moments(dense, pruned, weights):
    double = {"dtype": torch.float64}
    cross = weighted_cross(dense, pruned, weights, **double)
    return cross, weighted_gram(pruned, weights, **double), weighted_gram(dense, weights, **double)


def literal_error(pruned_weight, pruned, weight, dense, weights):
    difference = pruned @ pruned_weight.T - dense @ weight.T
    return float((weights[..., None] * difference.square()).sum())


def test_without_damping_it_is_weighted_least_squares():
    weight, dense, pruned, weights = drifted()
    cross, hessian, _ = moments(dense, pruned, weights)
    root = weights.sqrt()[..., None]
    best = torch.linalg.lstsq((root * pruned).flatten(0, 1), (root * (dense @ weight.T)).flatten(0, 1)).solution.T
    for anchored in (True, False):
        got = corrected_target(weight, cross, hessian, damp=0.0, anchored=anchored)
        torch.testing.assert_close(got, best, rtol=1e-8, atol=1e-8)


def test_damped_forms_equal_their_formulas_and_minimise():
    weight, dense, pruned, weights = drifted()
    cross, hessian, _ = moments(dense, pruned, weights)
    delta = 0.05 * hessian.diagonal().mean() * torch.eye(12, dtype=torch.float64)
    inverse = torch.linalg.inv(hessian + delta)
    plain = corrected_target(weight, cross, hessian, damp=0.05, anchored=False)
    torch.testing.assert_close(plain, weight @ cross @ inverse, rtol=1e-8, atol=1e-8)
    anchored = corrected_target(weight, cross, hessian, damp=0.05)
    torch.testing.assert_close(anchored, weight @ (cross + delta) @ inverse, rtol=1e-8, atol=1e-8)
    # stationary: gradient of the error plus delta |V - W|^2
    gradient = anchored @ hessian - weight @ cross + (anchored - weight) @ delta
    assert gradient.abs().max() < 1e-9


def test_tau_goes_straight_from_the_weight_to_the_target():
    weight, dense, pruned, weights = drifted()
    cross, hessian, own = moments(dense, pruned, weights)
    end = corrected_target(weight, cross, hessian, damp=1e-6)
    errors = []
    for tau in (0.0, 0.3, 1.0):
        got = corrected_target(weight, cross, hessian, tau=tau, damp=1e-6)
        torch.testing.assert_close(got, weight + tau * (end - weight))
        errors.append(layer_error(got, weight, hessian, cross, own))
    assert errors[0] > errors[1] > errors[2] > 0
    assert torch.equal(corrected_target(weight, cross, hessian, tau=0.0), weight)


def test_equal_inputs_and_dead_inputs_leave_the_weight():
    weight, dense, pruned, weights = drifted()
    own = weighted_gram(dense.float(), weights)
    assert torch.equal(corrected_target(weight.bfloat16(), own, own), weight.bfloat16())
    assert not torch.equal(corrected_target(weight, own, own, anchored=False), weight)
    pruned[..., 4] = 0
    cross, hessian, _ = moments(dense, pruned, weights)
    before = weight.clone(), cross.clone(), hessian.clone()
    got = corrected_target(weight, cross, hessian)
    assert torch.equal(got[:, 4], weight[:, 4])
    assert got.isfinite().all()
    assert all(torch.equal(a, b) for a, b in zip(before, (weight, cross, hessian), strict=True))


def test_layer_error_by_hand():
    weight, target = torch.tensor([[1.0, 0], [0, 2]]), torch.tensor([[1.0, 1], [3, 2]])
    hessian = torch.tensor([[2.0, 1], [1, 5]])
    # differences [0 -1] and [-3 0]: 5 + 9 * 2
    assert layer_error(weight, target, hessian) == 23
    assert layer_error(target, target, hessian) == 0


def test_layer_error_equals_the_outputs():
    weight, dense, pruned, weights = drifted()
    other = weight + 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(9))
    cross, hessian, own = moments(dense, pruned, weights)
    same = literal_error(other, pruned, weight, pruned, weights)
    assert layer_error(other, weight, hessian) == pytest.approx(same, rel=1e-9)
    exact = literal_error(other, pruned, weight, dense, weights)
    assert layer_error(other, weight, hessian, cross, own) == pytest.approx(exact, rel=1e-9)
    # without the dense term it is off by a constant
    constant = exact - layer_error(other, weight, hessian, cross)
    exact = literal_error(weight, pruned, weight, dense, weights)
    assert layer_error(weight, weight, hessian, cross) + constant == pytest.approx(exact, rel=1e-9)


def test_refuses():
    weight, eye = torch.ones(2, 3), torch.eye(3)
    with pytest.raises(ValueError, match=r"tau is 1.5"):
        corrected_target(weight, eye, eye, tau=1.5)
    with pytest.raises(ValueError, match="hessian has shape"):
        corrected_target(weight, torch.eye(2), eye)
    with pytest.raises(ValueError, match="not positive definite"):
        corrected_target(weight, eye, -eye)
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        layer_error(weight * math.nan, weight, eye)
    with pytest.raises(ValueError, match="target has shape"):
        layer_error(weight, torch.ones(3, 2), eye)
    with pytest.raises(ValueError, match="only with cross"):
        layer_error(weight, weight, eye, dense=eye)
