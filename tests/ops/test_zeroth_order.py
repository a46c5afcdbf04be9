import math

import pytest
import torch

from tamp_lightning.ops.allocation import allocate
from tamp_lightning.ops.zeroth_order import gradient_estimate, perturbation, perturbed, sensitivity


def test_noise_comes_from_the_seed_alone():
    noise = perturbation((3, 50), 7)
    assert noise.dtype == torch.float32
    assert torch.equal(noise, perturbation(torch.Size([3, 50]), 7))
    assert not torch.equal(noise, perturbation((3, 50), 8))
    state = torch.get_rng_state()
    perturbation((4,), 1)
    assert torch.equal(state, torch.get_rng_state())
    many = perturbation((200, 200), 0)
    assert abs(float(many.mean())) < 0.02
    assert abs(float(many.std()) - 1) < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_both_steps_use_the_same_float32_noise_and_leave_the_weight_alone(dtype):
    weight = torch.randn(4, 30, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = weight.clone()
    plus, minus = perturbed(weight, 3, 1e-3), perturbed(weight, 3, -1e-3)
    noise = perturbation(weight.shape, 3)
    assert plus.dtype == dtype
    assert torch.equal(plus, (weight.float() + 1e-3 * noise).to(dtype))
    assert torch.equal(minus, (weight.float() - 1e-3 * noise).to(dtype))
    assert torch.equal(weight, before)


def test_slope_of_a_quadratic_is_the_gradient_along_the_noise():
    generator = torch.Generator().manual_seed(1)
    weight, inputs = torch.randn(3, 5, generator=generator), torch.randn(4, 20, 5, generator=generator)

    def loss(candidate):  # one per sample
        return (inputs.double() @ candidate.double().T).square().sum((1, 2))

    eps = 1e-3
    estimate = gradient_estimate(loss(perturbed(weight, 9, eps)), loss(perturbed(weight, 9, -eps)), eps)
    moments = inputs.double().mT @ inputs.double()
    gradient = 2 * weight.double() @ moments
    expected = (gradient * perturbation(weight.shape, 9).double()).sum((1, 2))
    torch.testing.assert_close(estimate, expected, rtol=1e-3, atol=1e-2)
    assert sensitivity(estimate) == pytest.approx(float(expected.abs().sum()), rel=1e-3)


def test_by_hand():
    assert gradient_estimate(2.5, 2.0, 0.25).item() == 1.0
    estimates = gradient_estimate(torch.tensor([1.0, 0]), torch.tensor([0.0, 3]), 0.5)
    assert estimates.tolist() == [1, -3]
    assert sensitivity(estimates) == 4
    # an insensitive linear is pruned more
    kept = allocate({"a": 4.0, "b": 1.0}, {"a": 100, "b": 100}, sparsity=0.5, cap=0.6)
    assert kept["a"] > kept["b"]


def test_refuses():
    with pytest.raises(ValueError, match="eps is 0"):
        gradient_estimate(1.0, 1.0, 0.0)
    with pytest.raises(ValueError, match="expected the same"):
        gradient_estimate(torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match="NaN or infinite"):
        sensitivity(gradient_estimate(torch.tensor([math.inf]), torch.tensor([1.0])))
