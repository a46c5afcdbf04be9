import math

import pytest
import torch

from tamp_lightning.ops.gram import cosine_gram
from tamp_lightning.ops.masks import all_finite, keep_where, keep_where_


def tokens(dtype=torch.float32, seed=0):
    return torch.randn(2, 30, 16, generator=torch.Generator().manual_seed(seed)).to(dtype)


def cosine(x):
    u = x.double() / x.double().norm(dim=-1, keepdim=True)
    return u @ u.mT


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_exact_cosines_lose_nothing_of_the_tokens_dtype(dtype):
    x = tokens(dtype)
    torch.testing.assert_close(cosine_gram(x).double(), cosine(x), rtol=0, atol=2e-6)


def test_bf16_is_the_gram_of_rounded_tokens():
    x = tokens()
    got = cosine_gram(x, precision="bf16")
    torch.testing.assert_close(got.double(), cosine(x.bfloat16()), rtol=0, atol=2e-6)
    assert (got.double() - cosine(x)).abs().max() > 1e-4


def test_how_products_are_rounded_elsewhere_does_not_change():
    x = tokens()
    before = x @ x.mT
    cosine_gram(x.bfloat16())
    assert torch.equal(x @ x.mT, before)


def test_padding_has_cosine_zero_whatever_it_holds():
    x, valid = tokens(), torch.arange(30) < torch.tensor([[30], [11]])
    x[1, 11:], x[1, 12] = math.nan, math.inf
    got = cosine_gram(x, valid)
    assert not got[1, 11:].any()
    assert not got[1, :, 11:].any()
    torch.testing.assert_close(got[1, :11, :11], cosine_gram(x[1:, :11])[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_keep_where_is_masked_fill(dtype):
    x = tokens(dtype)[0]
    keep = torch.rand(30, 16, generator=torch.Generator().manual_seed(1)) > 0.4
    x[~keep] = torch.tensor([math.nan, math.inf, -1.0] * 200, dtype=dtype)[: int((~keep).sum())]
    expected = x.masked_fill(~keep, 0)
    got = keep_where(x, keep)
    assert torch.equal(got, expected)
    assert not got[~keep].signbit().any()
    assert keep_where_(x, keep) is x
    assert torch.equal(x, expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_all_finite(bad):
    for dtype in (torch.bfloat16, torch.float32):
        x = tokens(dtype)
        assert all_finite(x)
        x[1, 3, 5] = bad
        assert not all_finite(x)
    assert all_finite(torch.empty(0))
    assert all_finite(torch.tensor([3e38, 3e38]))
