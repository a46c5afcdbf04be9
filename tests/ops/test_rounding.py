"""Rounding to whole numbers times scales, against a literal loop over the groups; and finding the scales again."""

import pytest
import torch

from tamp_lightning.ops.rounding import BITS, GROUP, from_codes, group_scales, round_weight

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def sparse(rows, columns, dtype, density=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = 0.02 * torch.randn(rows, columns, generator=generator)
    return (weight * (torch.rand(rows, columns, generator=generator) < density)).to(dtype)


@pytest.mark.parametrize("bits", BITS.values())
@pytest.mark.parametrize("shape", [(1, 1), (3, 128), (5, 300), (2, 127)], ids=str)
def test_each_group_by_hand(shape, bits):
    weight = sparse(*shape, torch.float32)
    codes, scales = round_weight(weight, bits)
    most = 2 ** (bits - 1) - 1
    for row in range(shape[0]):
        for group, start in enumerate(range(0, shape[1], GROUP)):
            part = weight[row, start : start + GROUP]
            scale = (part.abs().max() / most).to(torch.bfloat16)
            assert scales[row, group] == scale
            for value, code in zip(part.tolist(), codes[row, start : start + GROUP].tolist(), strict=True):
                nearest = round(value / float(scale)) if scale else 0
                assert code == max(-most, min(most, nearest))
                assert value or not code
    assert scales.shape == (shape[0], -(-shape[1] // GROUP))


@pytest.mark.parametrize("bits", BITS.values())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("attained", [True, False])
def test_rounded_weights_are_found_to_be_so(dtype, bits, attained, monkeypatch):
    """Also where no weight is the largest number, as after a sweep; in pieces of a few rows."""
    monkeypatch.setattr("tamp_lightning.ops.rounding._PIECE", 1000)
    weight = sparse(40, 300, dtype)
    scales = group_scales(weight, bits) * (1 if attained else 1.3)
    codes = (weight.float() / scales.float().repeat_interleave(GROUP, 1)[:, :300]).round().clamp(-127, 127)
    rounded = from_codes(codes, scales, dtype)
    again = round_weight(rounded, bits)
    assert torch.equal(from_codes(*again, dtype), rounded)
    assert not torch.equal(rounded, weight)


def test_weights_of_their_own_are_not_searched(monkeypatch):
    """A matrix that was never rounded costs a few groups' search, and its scales are those of the largest weights."""
    weight = sparse(100, 1024, torch.bfloat16)
    monkeypatch.setattr("tamp_lightning.ops.rounding._search", lambda *_: pytest.fail("searched"))
    assert torch.equal(round_weight(weight, 8)[1], group_scales(weight, 8))


@pytest.mark.parametrize("bits", BITS.values())
def test_small_large_and_no_numbers(bits):
    for value in (0.0, 1e-45, 1e-38, 3e38):
        weight = torch.full((2, 5), value)
        back = from_codes(*round_weight(weight, bits), torch.float32)
        assert torch.isfinite(back).all()
        assert ((back - weight).abs() <= 1e-2 * value + 1e-37).all()
    assert round_weight(torch.zeros(0, 5), bits)[0].shape == (0, 5)
    assert round_weight(torch.zeros(5, 0), bits)[0].shape == (5, 0)
    for wrong in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match="infinite or NaN"):
            round_weight(torch.tensor([[1.0, wrong]]), bits)
