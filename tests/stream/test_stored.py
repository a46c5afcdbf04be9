"""Pruned weights in the dtype on disk."""

import pytest
import torch
from torch import nn

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.stream.stored import by_key, first_other, merge, write_pieces


def linear(name, key):
    return Linear(0, name, f"layers.0.{name}", (2, 2), key)


def test_a_weight_that_did_not_move_keeps_its_bits():
    source = torch.tensor([[0.1, 0.2], [0.3, 0.4]], dtype=torch.float64)
    computed = source.float()
    computed[0, 1] = 0.25
    mask = torch.tensor([[True, True], [False, True]])
    got = merge(source, computed, mask)
    # 0.1 is what float32 makes of it, so the float64 on disk stays; 0.25 moved
    assert got.tolist() == [[0.1, 0.25], [0.0, 0.4]]
    assert got.dtype == torch.float64


def test_what_is_stored_and_the_block_agree_afterwards():
    block = nn.ModuleDict({"q": nn.Linear(2, 2, bias=False)})
    stored = torch.full((2, 2), 3.0, dtype=torch.bfloat16)
    block["q"].weight.data.fill_(1 + 2**-9)  # bfloat16 has no such number
    q, mask = linear("q", "a.weight"), torch.tensor([[True, False], [True, True]])
    assert first_other(block, [q], stored) is q
    assert write_pieces(block, {q: mask}, stored).tolist() == [[1.0, 0.0], [1.0, 1.0]]
    assert first_other(block, [q], stored) is None


def test_a_weight_too_large_for_the_disk_is_refused():
    block = nn.ModuleDict({"q": nn.Linear(2, 2, bias=False)})
    block["q"].weight.data.fill_(1e6)
    with pytest.raises(ValueError, match=r"layers\.0\.q does not fit torch\.float16, its dtype on disk, after pruning"):
        write_pieces(block, {linear("q", "a"): torch.ones(2, 2, dtype=torch.bool)}, torch.zeros(2, 2).half())


def test_linears_are_grouped_by_what_they_are_stored_in():
    one, two, three = linear("one", "a"), linear("two", "b"), linear("three", "a")
    assert by_key([one, two, three]) == {"a": [one, three], "b": [two]}
