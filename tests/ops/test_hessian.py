import math

import pytest
import torch

from tamp_lightning.ops.hessian import blend, damped, weighted_cross, weighted_gram


def literal_gram(first, second, weights):
    total = torch.zeros(first.shape[-1], second.shape[-1], dtype=torch.float64)
    for a, b, w in zip(first.flatten(0, 1), second.flatten(0, 1), weights.flatten(), strict=True):
        if w:
            total += float(w) * torch.outer(a.double(), b.double())
    return total


def test_gram_by_hand():
    inputs = torch.tensor([[[1.0, 2], [3, -1]], [[0, 4], [5, 5]]])
    weights = torch.tensor([[1.0, 4], [0.25, 0]])
    # [1 2; 2 4] + 4 [9 -3; -3 1] + [0 0; 0 4]
    assert weighted_gram(inputs, weights).tolist() == [[37, -10], [-10, 12]]
    # [1 0; 2 0] + 4 [0 3; 0 -1] + [0 0; 1 0]
    second = torch.tensor([[[1.0, 0], [0, 1]], [[1, 0], [9, 9]]])
    assert weighted_cross(inputs, second, weights).tolist() == [[1, 12], [3, -4]]


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_gram_equals_outer_products_and_never_reads_padding(kind):
    generator = torch.Generator().manual_seed(0)
    inputs, second = torch.randn(2, 3, 20, 6, generator=generator).bfloat16()
    weights = torch.rand(3, 20, generator=generator) * (torch.arange(20) < torch.tensor([[20], [9], [0]]))
    if kind == "bool":
        weights = weights > 0.4
    expected = literal_gram(inputs, inputs, weights)
    crossed = literal_gram(inputs, second, weights)
    inputs[weights == 0], second[weights == 0] = math.nan, math.inf
    for dtype, rtol in ((torch.float32, 1e-5), (torch.float64, 1e-7 if kind == "float" else 1e-14)):
        got = weighted_gram(inputs, weights, dtype=dtype)
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), expected, rtol=rtol, atol=1e-5 if dtype == torch.float32 else 1e-6)
        torch.testing.assert_close(got, got.T, rtol=1e-6, atol=1e-6)
        cross = weighted_cross(inputs, second, weights, dtype=dtype)
        torch.testing.assert_close(cross.double(), crossed, rtol=1e-5, atol=1e-5)


def test_padding_changes_no_bit_and_inputs_stay():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(2, 37, 9, generator=generator)
    ones = torch.ones(2, 37)
    before = inputs.clone()
    plain = weighted_gram(inputs, ones)
    flat = inputs.flatten(0, 1)
    assert torch.equal(plain, flat.T @ flat)
    assert torch.equal(plain, weighted_gram(inputs, ones.bool()))
    assert torch.equal(plain, weighted_cross(inputs, inputs, ones))
    wide = torch.full((2, 90, 9), math.nan)
    wide[:, 11:48] = inputs
    weights = torch.zeros(2, 90)
    weights[:, 11:48] = 1
    assert torch.equal(weighted_gram(wide, weights), plain)
    assert torch.equal(inputs, before)
    assert not weighted_gram(inputs, torch.zeros(2, 37)).any()


def test_blend_is_by_mass():
    selected, everything = torch.tensor([[4.0, 0], [0, 8]]), torch.tensor([[20.0, 10], [10, 40]])
    # per token [1 0; 0 2] and [2 1; 1 4]
    assert blend(selected, everything, 0.25, (4.0, 10.0)).tolist() == [[1.25, 0.25], [0.25, 2.5]]
    assert torch.equal(blend(selected, everything, 0, (4.0, 10.0)), selected / 4)
    assert torch.equal(blend(selected, everything, 1, (4.0, 10.0)), everything / 10)
    # nothing was selected: what is left is all tokens, up to a factor
    assert torch.equal(blend(selected * math.nan, everything, 0.5, (0.0, 10.0)), everything / 20)
    assert selected.tolist() == [[4, 0], [0, 8]]


def test_damped_by_hand():
    hessian = torch.tensor([[2.0, 1, 0], [1, 4, 0], [0, 0, 0]])
    # mean of the live diagonal is 3
    got = damped(hessian, 0.1)
    torch.testing.assert_close(got, torch.tensor([[2.3, 1, 0], [1, 4.3, 0], [0, 0, 3.3]]))
    assert hessian[2, 2] == 0
    assert torch.equal(damped(hessian * 4, 0.25), damped(hessian, 0.25) * 4)
    assert damped(hessian.double()).dtype == torch.float64
    assert damped(hessian.bfloat16()).dtype == torch.float32
    assert torch.equal(damped(torch.zeros(3, 3), 0.0), torch.eye(3))


def test_refuses():
    with pytest.raises(ValueError, match=r"expected .B, n, c. and .B, n."):
        weighted_gram(torch.ones(2, 3, 4), torch.ones(2, 4))
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="negative, NaN or infinite"):
            weighted_gram(torch.ones(1, 2, 3), torch.tensor([[1.0, bad]]))
    with pytest.raises(ValueError, match=r"share is 1.1"):
        blend(torch.eye(2), torch.eye(2), 1.1, (1.0, 1.0))
    with pytest.raises(ValueError, match="no modality"):
        blend(torch.eye(2), torch.eye(2), 0.0, (0.0, 1.0))
