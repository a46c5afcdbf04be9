"""Sums over samples have the same bits in any order, and whether or not other processes have samples."""

import torch

from tamp_lightning.distributed.sums import SampleSum

VALUES = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def added(order: list[int], alone: bool) -> SampleSum:
    total = SampleSum()
    for sample in order:
        total.add(sample, VALUES[sample], alone)
    return total


def test_neither_order_nor_processes_change_a_bit():
    expected = VALUES[0].clone()
    for value in VALUES[1:]:
        expected += value
    for order in (list(range(7)), [3, 1, 0, 2, 6, 5, 4]):
        for alone in (True, False):
            assert torch.equal(added(order, alone).total(), expected)


def test_what_is_in_order_is_not_kept_apart_by_one_process():
    assert not added(list(range(7)), True).samples
    assert sorted(added([0, 1, 3, 4], True).samples) == [3, 4]
    assert len(added(list(range(7)), False).samples) == 7


def test_samples_that_never_come_are_left_out():
    assert torch.equal(added([1, 4], True).total(), VALUES[1] + VALUES[4])
