import math

import pytest
import torch

from tamp_lightning.ops.scores import wanda
from tamp_lightning.ops.stats import weighted_square_sum


def test_by_hand():
    inputs = torch.tensor([[[1.0, 2], [3, -4], [5, 6]], [[1, 1], [2, 2], [0, 3]]])
    weights = torch.tensor([[1.0, 0.5, 0], [2, 0, 1]])
    got = weighted_square_sum(inputs, weights)
    assert got.dtype == torch.float64
    assert got.tolist() == [[5.5, 12], [2, 11]]
    assert weighted_square_sum(inputs, weights > 0).tolist() == [[10, 20], [1, 10]]


def test_padding_never_leaks_and_samples_are_independent():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 20, 7, generator=generator).bfloat16()
    weights = torch.rand(3, 20, generator=generator) * (torch.arange(20) < torch.tensor([[20], [9], [0]]))
    inputs[weights == 0] = math.nan
    inputs[1, 9] = math.inf
    got = weighted_square_sum(inputs, weights)
    for b, n in enumerate((20, 9, 0)):
        x, w = inputs[b, :n].double(), weights[b, :n].double()
        torch.testing.assert_close(got[b], (w[:, None] * x**2).sum(0), rtol=1e-6, atol=0)
        alone = weighted_square_sum(inputs[b : b + 1, :n], weights[b : b + 1, :n])
        torch.testing.assert_close(got[b : b + 1], alone, rtol=1e-14, atol=0)
        assert torch.equal(got[b : b + 1], weighted_square_sum(inputs[b : b + 1], weights[b : b + 1]))


def test_a_few_tokens_are_gathered_and_give_the_same_sum():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(3, 40, 5, generator=generator)
    picked = torch.rand(3, 40, generator=generator) < torch.tensor([[0.2], [0.0], [0.1]])
    assert 0 < picked.sum(1).max() <= 20
    expected = torch.stack([x[p].double().square().sum(0) for x, p in zip(inputs, picked, strict=True)])
    torch.testing.assert_close(weighted_square_sum(inputs, picked), expected, rtol=1e-6, atol=0)


def test_weights_of_one_give_the_bits_of_the_plain_sum_and_of_wanda():
    inputs = torch.randn(3, 17, 5, generator=torch.Generator().manual_seed(2))
    plain = inputs.square().sum(1, dtype=torch.float64)
    weight = torch.randn(4, 5, generator=torch.Generator().manual_seed(3))
    for ones in (torch.ones(3, 17), torch.ones(3, 17, dtype=torch.bool)):
        got = weighted_square_sum(inputs, ones)
        assert torch.equal(got, plain)
        assert torch.equal(wanda(weight, got.sum(0)), wanda(weight, plain.sum(0)))


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"expected .B, n, c. and .B, n."):
        weighted_square_sum(torch.ones(2, 3, 4), torch.ones(2, 4))
