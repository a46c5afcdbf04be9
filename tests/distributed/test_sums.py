"""Sums do not depend on how many processes add up."""

import pytest
import torch

from tamp_lightning.distributed.partition import LEAVES, BatchPartition
from tamp_lightning.distributed.sums import ARITY, OrderedSum

COUNTS = [*range(1, 21), 31, 32, 33, 100]


def tree(values: list[torch.Tensor]) -> torch.Tensor:
    """The sum over leaves, written down level by level."""
    while len(values) > 1:
        groups = [values[k : k + ARITY] for k in range(0, len(values), ARITY)]
        values = [sum(group[1:], group[0]) for group in groups]
    return values[0]


def values(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(50, generator=generator) * 10 ** (k % 5) for k in range(count)]


def summed(share: BatchPartition, addends: list[torch.Tensor]) -> OrderedSum:
    own = OrderedSum()
    for b in share.own:
        own.add(share.leaf(b), addends[b].clone())
    own.close()
    return own


@pytest.mark.parametrize("batches", COUNTS)
def test_sums_are_those_of_the_tree_for_any_number_of_processes(batches):
    addends, one = values(batches), BatchPartition(batches)
    leaves = [[addends[b] for b in range(batches) if one.leaf(b) == leaf] for leaf in range(one.leaves)]
    expected = tree([sum(leaf[1:], leaf[0]) for leaf in leaves])
    for processes in range(1, one.leaves + 1):
        shares = [BatchPartition(batches, rank, processes) for rank in range(processes)]
        first, *others = [summed(share, addends) for share in shares]
        for other in others:
            for part in other.parts:
                first.append(*part)
        assert torch.equal(first.total(), expected)
    plain = sum(addends[1:], addends[0])
    assert torch.equal(plain, expected) == (batches <= ARITY + 1)


def test_one_process_holds_few_tensors_at_a_time():
    own, most = OrderedSum(), 0
    for leaf in range(LEAVES):
        own.add(leaf, torch.ones(1))
        most = max(most, len(own.parts))
    assert most == 3
    assert own.total().item() == LEAVES
