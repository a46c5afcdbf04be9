"""Intervals against cases worked by hand and a bootstrap over clusters."""

import pytest
import torch

from tamp_lightning.metrics.compare import corrected_retention, paired_difference
from tamp_lightning.metrics.intervals import mean_interval, retention_difference, retention_interval


@pytest.fixture
def scores():
    """Pictures with one to four questions of two benchmarks, answers of a picture alike."""
    rng = torch.Generator().manual_seed(0)
    clusters, names, dense, pruned, other = [], [], [], [], []
    for picture in range(300):
        luck = torch.rand((), generator=rng).item()
        for k in range(1 + picture % 4):
            clusters.append(picture)
            names.append("ab"[k % 2])
            dense.append(float(torch.rand((), generator=rng).item() < 0.9))
            pruned.append(float(torch.rand((), generator=rng).item() < 0.2 + 0.6 * luck))
            other.append(float(torch.rand((), generator=rng).item() < 0.7 * luck))
    return torch.tensor(dense), torch.tensor(pruned), torch.tensor(other), names, clusters


def retention(dense, pruned, names, floor):
    rows = {n: torch.tensor([own == n for own in names]) for n in floor}
    means = [{n: scores[rows[n]].mean().item() for n in floor} for scores in (dense, pruned)]
    return corrected_retention(*means, floor)


def bootstrap(figure, clusters, draws=1500):
    """2.5 and 97.5 % quantile of a figure over samples of clusters drawn with replacement."""
    rng = torch.Generator().manual_seed(1)
    members = {}
    for row, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(row)
    held = [torch.tensor(rows) for rows in members.values()]
    found = []
    for _ in range(draws):
        drawn = torch.randint(len(held), (len(held),), generator=rng).tolist()
        found.append(figure(torch.cat([held[k] for k in drawn])))
    return torch.tensor(found).quantile(torch.tensor([0.025, 0.975])).tolist()


def test_one_benchmark_by_hand():
    # dense always right: retention is the mean of the pruned scores, and so is its interval
    pruned, clusters = [1.0, 0.0, 1.0, 1.0, 0.0], [0, 0, 1, 2, 3]
    found = retention_interval([1.0] * 5, pruned, ["a"] * 5, clusters)
    plain = mean_interval(pruned, clusters)
    assert found.value == pytest.approx(60)
    assert found == pytest.approx([100 * x for x in plain])


def test_mean_interval_is_that_of_the_paired_difference_to_nothing():
    values, clusters = [0.2, 0.9, 0.4, 0.7], ["a", "a", "b", "c"]
    test = paired_difference(values, [0.0] * 4, clusters)
    assert mean_interval(values, clusters) == pytest.approx((test.mean, test.low, test.high))


@pytest.mark.parametrize("floor", [{"a": 0.0, "b": 0.0}, {"a": 0.3, "b": 0.1}])
def test_retention_agrees_with_the_bootstrap(scores, floor):
    dense, pruned, _, names, clusters = scores

    def figure(rows):
        return retention(dense[rows], pruned[rows], [names[r] for r in rows.tolist()], floor)

    found = retention_interval(dense, pruned, names, clusters, floor)
    assert found.value == pytest.approx(retention(dense, pruned, names, floor))
    low, high = bootstrap(figure, clusters)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.12 * (high - low))


def test_difference_agrees_with_the_bootstrap_and_is_paired(scores):
    dense, pruned, other, names, clusters = scores
    floor = {"a": 0.0, "b": 0.0}

    def figure(rows):
        own = [names[r] for r in rows.tolist()]
        return retention(dense[rows], pruned[rows], own, floor) - retention(dense[rows], other[rows], own, floor)

    found = retention_difference(dense, pruned, other, names, clusters)
    low, high = bootstrap(figure, clusters)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.12 * (high - low))
    same = retention_difference(dense, pruned, pruned, names, clusters)
    assert same == (0, 0, 0)


def test_refusals(scores):
    dense, pruned, _, names, clusters = scores
    with pytest.raises(ValueError, match="above its floor"):
        retention_interval(dense, pruned, names, clusters, {"a": 1.0, "b": 0.0})
    with pytest.raises(ValueError, match="two clusters"):
        retention_interval(dense, pruned, names, [0] * len(names))
    with pytest.raises(ValueError, match="as many"):
        retention_interval(dense, pruned[1:], names, clusters)
