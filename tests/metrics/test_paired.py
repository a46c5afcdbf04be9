"""McNemar's exact test, verdicts and the pooled difference, against hand-worked and literal cases."""

from itertools import product

import pytest
import torch

from tamp_lightning.metrics.compare import paired_difference
from tamp_lightning.metrics.intervals import pooled_difference
from tamp_lightning.metrics.paired import BETTER, SAME, UNKNOWN, WORSE, mcnemar, verdict


def answers(lost, won, same=3):
    dense = [1.0] * lost + [0.0] * won + [1.0] * same
    pruned = [0.0] * lost + [1.0] * won + [1.0] * same
    return dense, pruned


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (10, 2, 2 * (1 + 12 + 66) / 4096), (3, 3, 1.0), (0, 8, 2 / 256)],
)
def test_mcnemar_by_hand(lost, won, p):
    assert mcnemar(*answers(lost, won)) == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize(("lost", "won"), [(4, 1), (2, 5), (6, 3)])
def test_mcnemar_counts_splits_at_least_as_uneven(lost, won):
    changed = lost + won
    uneven = [sum(coins) for coins in product((0, 1), repeat=changed)]
    as_uneven = sum(abs(2 * heads - changed) >= abs(lost - won) for heads in uneven)
    assert mcnemar(*answers(lost, won)) == pytest.approx(min(1.0, as_uneven / 2**changed))


def test_mcnemar_leaves_out_what_was_not_asked_and_takes_half_as_right():
    nan = float("nan")
    assert mcnemar([1.0, 1.0, 0.5, 1.0, 1.0, 1.0], [0.0, 0.3, 0.0, 0.0, 0.4, nan]) == pytest.approx(2 / 32)
    with pytest.raises(ValueError, match="equally long"):
        mcnemar([1.0], [1.0, 0.0])


def test_many_answers_need_no_table():
    assert mcnemar(*answers(3000, 2000)) < 1e-40
    assert 0.9 < mcnemar(*answers(5000, 5001)) <= 1


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [(-0.2, -0.05, WORSE), (-0.009, 0.009, SAME), (-0.009, -0.001, SAME), (-0.05, 0.02, UNKNOWN), (0.02, 0.1, BETTER),
     (-0.01, 0.0, UNKNOWN), (float("nan"), float("nan"), UNKNOWN)],
)  # fmt: skip
def test_verdicts(low, high, says):
    assert verdict(low, high) == says


def test_pooled_over_one_benchmark_is_the_paired_difference():
    generator = torch.Generator().manual_seed(0)
    dense, pruned = (torch.rand(40, generator=generator).round() for _ in range(2))
    clusters = [k // 3 for k in range(40)]
    one = pooled_difference(dense, pruned, ["a"] * 40, clusters)
    other = paired_difference(pruned, dense, clusters)
    assert tuple(one) == pytest.approx(tuple(other))


def test_benchmarks_count_alike_and_their_errors_add_up():
    generator = torch.Generator().manual_seed(1)
    dense, pruned = (torch.rand(60, generator=generator).round() for _ in range(2))
    names, clusters = ["a"] * 20 + ["b"] * 40, list(range(60))
    found = pooled_difference(dense, pruned, names, clusters)
    parts = [paired_difference(pruned[rows], dense[rows]) for rows in (slice(20), slice(20, 60))]
    assert found.mean == pytest.approx(sum(part.mean for part in parts) / 2)
    # independent samples: variances of the halves add up, but for n - 1 taken over all and not in each
    expected = sum(part.stderr**2 for part in parts) ** 0.5 / 2
    assert found.stderr == pytest.approx(expected, rel=0.03)
