"""The greedy loop against one that looks at every pick and computes the mismatch from its definition."""

import math

import pytest
import torch

from tamp_lightning.ops.picking import Mismatch, Order, pick_until


def literal(value, index, share, kernel, size, limit):
    """Picks of one sample, and the squared MMD after each."""
    value, picked, mismatch = value.clone(), [], []
    while len(picked) < size:
        best = int(value.argmax())
        for k, near in enumerate(index[best]):
            value[near] -= share[best, k] * max(float(value[best]), 0.0)
        value[best] = -math.inf
        picked.append(best)
        rows = kernel[picked].double()
        p = len(picked)
        mismatch.append(
            float(kernel.double().sum() / size**2 + rows[:, picked].sum() / p**2 - 2 * rows.sum() / (p * size))
        )
        if mismatch[-1] < limit:
            break
    return sorted(picked), mismatch


@pytest.mark.parametrize("limit", [0.0, 0.02, 0.1, 10.0])
def test_picks_stop_where_they_represent_the_sample(limit):
    torch.manual_seed(0)
    batch, n, k = 3, 41, 3
    tokens = torch.nn.functional.normalize(torch.randn(batch, n, 4), dim=-1)
    cosine = tokens @ tokens.transpose(1, 2)
    kernel = (cosine - 1).exp()
    index = cosine.masked_fill(torch.eye(n, dtype=torch.bool), -2).topk(k).indices
    share, value = torch.rand(batch, n, k), torch.rand(batch, n)
    size = torch.full((batch,), n)
    order = Order(value.clone(), index, share)
    limits = torch.full((batch,), limit, dtype=torch.float64)
    got = pick_until(order, Mismatch(kernel, torch.ones(batch, n, dtype=torch.bool)), limits, size)
    for b in range(batch):
        picked, _ = literal(value[b], index[b], share[b], kernel[b], n, limit)
        assert got[b].nonzero().flatten().tolist() == picked


def test_the_mismatch_of_all_tokens_is_none_and_of_one_by_hand():
    kernel = torch.tensor([[[1.0, 0.5], [0.5, 1.0]]])
    mismatch = Mismatch(kernel, torch.ones(1, 2, dtype=torch.bool))
    found = mismatch.extend(torch.tensor([[0, 1]]), 0)
    # 3/4 + 1 - 2 * 1.5 / 2, then 3/4 + 3/4 - 2 * 3 / 4
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.0]], dtype=torch.float64))
