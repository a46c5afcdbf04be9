"""Tokens sorted by expert, their sums by sample, and sums over few tokens drawn towards the mean."""

from itertools import pairwise

import pytest
import torch

from tamp_lightning.ops.routing import by_expert, shrunk, square_sums


def test_pairs_are_sorted_by_expert_in_the_order_of_tokens():
    index = torch.tensor([[2, 0], [0, 1], [2, 3]])  # 3 is nobody's: there are three experts
    order, bounds = by_expert(index, 3)
    assert bounds == [0, 2, 3, 5]
    assert [(order[a:b] // 2).tolist() for a, b in pairwise(bounds)] == [[0, 1], [1], [0, 2]]


def test_an_expert_without_a_token_has_an_empty_share():
    assert by_expert(torch.tensor([[3], [3]]), 4)[1] == [0, 0, 0, 0, 2]
    assert by_expert(torch.empty(0, 2, dtype=torch.int64), 2)[1] == [0, 0, 0]


def test_sums_by_sample_do_not_depend_on_other_samples():
    tokens, weights = torch.randn(6, 3), torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 1.0])
    samples = torch.tensor([0, 0, 2, 2, 2, 2])
    sums = square_sums(tokens, weights, samples, 3)
    expected = torch.stack([weights[k] * tokens[k].double() ** 2 for k in range(6)])
    torch.testing.assert_close(sums, torch.stack([expected[:2].sum(0), torch.zeros(3).double(), expected[2:].sum(0)]))
    assert torch.equal(sums[2], square_sums(tokens[2:], weights[2:], torch.zeros(4, dtype=torch.int64), 1)[0])


@pytest.mark.parametrize(
    ("mass", "strength", "expected"),
    [(2.0, 0.0, [4.0, 8.0]), (2.0, 2.0, [6.0, 18.0]), (0.0, 2.0, [2.0, 10.0]), (0.0, 0.0, [1.0, 5.0])],
)
def test_the_mean_counts_for_so_many_tokens(mass, strength, expected):
    total = torch.tensor([4.0, 8.0]) if mass else torch.zeros(2)
    found, behind = shrunk(total, mass, torch.tensor([1.0, 5.0]), strength)
    assert found.tolist() == expected
    assert behind == (mass + strength or 1.0)
