"""Shares of batches, and sums that do not depend on them."""

import pytest

from tamp_lightning.distributed.partition import LEAVES, BatchPartition

COUNTS = [*range(1, 21), 31, 32, 33, 100]


@pytest.mark.parametrize("batches", COUNTS)
def test_every_batch_has_one_owner_and_no_leaf_two(batches):
    for processes in range(1, BatchPartition(batches).leaves + 1):
        shares = [BatchPartition(batches, rank, processes) for rank in range(processes)]
        assert [b for share in shares for b in share.own] == list(range(batches))
        assert {share.steps for share in shares} == {max(len(share.own) for share in shares)}
        leaves = [{share.leaf(b) for b in share.own} for share in shares]
        assert sum(map(len, leaves)) == len(set().union(*leaves)) == min(LEAVES, batches)
        assert min(len(share.own) for share in shares) > 0


def test_two_processes_differ_by_at_most_one_batch_where_leaves_are_batches():
    for batches in range(2, LEAVES + 1):
        sizes = [len(BatchPartition(batches, rank, 2).own) for rank in range(2)]
        assert max(sizes) - min(sizes) <= 1
