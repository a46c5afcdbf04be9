"""Comparisons of a pruned and a dense model."""

import math
import statistics

import pytest
import torch

from tamp_lightning.metrics import corrected_retention, flips, paired_difference, retention, standard_error
from tamp_lightning.metrics.student import critical_value

# Quantiles of any printed table of the t distribution.


def test_clustered_difference_by_hand():
    """a - b = 1, 1, 0 | -1, 0 | 1 in clusters p, q, r: mean 1/3.

    Deviations 2/3, 2/3, -1/3 | -4/3, -1/3 | 2/3 have squares 4+4+1+16+1+4 = 30 ninths; variance of the mean
    (30/9) / 5 / 6 = 1/9. Cluster sums 1, -5/3, 2/3 have squares 9+25+4 = 38 ninths; (38 - 30) / 9 / 36 = 2/81 more.
    """
    a, b = [1, 1, 1, 0, 0, 1], [0, 0, 1, 1, 0, 0]
    found = paired_difference(a, b, clusters=["p", "p", "p", "q", "q", "r"])
    assert found.mean == pytest.approx(1 / 3)
    assert found.stderr == pytest.approx(math.sqrt(1 / 9 + 2 / 81))
    assert found.high - found.mean == pytest.approx(critical_value(2) * found.stderr)
    assert found.high + found.low == pytest.approx(2 * found.mean)
    assert paired_difference(a, b).stderr == pytest.approx(1 / 3)


def test_clusters_literally():
    """Equation 4 of Miller 2024 written out over all pairs of samples."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-1, 2, (40,), generator=generator).tolist()
    clusters = torch.randint(0, 9, (40,), generator=generator).tolist()
    mean = sum(values) / 40
    pairs = ((i, j) for i in range(40) for j in range(40) if i != j and clusters[i] == clusters[j])
    cross = sum((values[i] - mean) * (values[j] - mean) for i, j in pairs)
    expected = math.sqrt(statistics.variance(values) / 40 + cross / 40**2)
    assert standard_error(values, clusters) == pytest.approx(expected)
    assert paired_difference(values, [0] * 40, clusters).stderr == pytest.approx(expected)


def test_single_clusters_are_plain_samples():
    values = [1.0, 0.0, 0.5, 1.0]
    assert standard_error(values, "abcd") == pytest.approx(statistics.stdev(values) / 2)


def test_the_interval_covers_the_truth():
    """Clustered samples: about 95 of 100 intervals must cover 0, and the plain ones far fewer."""
    generator = torch.Generator().manual_seed(1)
    clusters = [picture for picture in range(60) for _ in range(5)]
    covered = {"clustered": 0, "plain": 0}
    for _ in range(200):
        shared = torch.randn(60, generator=generator).repeat_interleave(5)
        a = shared + 0.3 * torch.randn(300, generator=generator)
        for name, by in (("clustered", clusters), ("plain", None)):
            found = paired_difference(a, torch.zeros(300), by)
            covered[name] += found.low <= 0 <= found.high
    assert 180 <= covered["clustered"] <= 198
    assert covered["plain"] < 140


def test_unseen_samples_leave_the_pairs():
    nan = float("nan")
    found = paired_difference([1, nan, 1, 0], [0, 1, nan, 0], clusters=["x", "y", "z", "w"])
    assert (found.mean, found.num_samples) == (0.5, 2)
    assert flips([1, nan, 1, 0], [0, 1, nan, 0]) == 0.5


def test_equal_models():
    found = paired_difference([1, 0, 1], [1, 0, 1])
    assert found[:6] == (0, 0, 0, 0, 0, 1)
    assert paired_difference([1, 1, 1], [0, 0, 0]).p == 0
    assert flips(torch.ones(3), torch.ones(3)) == 0


def test_corrected_retention():
    dense, floor = {"pope": 0.9, "mc": 0.65}, {"pope": 0.5, "mc": 0.25}
    assert corrected_retention(dense, {"pope": 0.7, "mc": 0.65}, floor) == pytest.approx(75)
    assert corrected_retention(dense, floor, floor) == 0
    assert corrected_retention(dense, {"pope": 0.4, "mc": 0.25}, floor) == pytest.approx(-12.5)
    assert retention(dense, floor) > 40


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: retention({"a": 1.0}, {"b": 1.0}), r"dense \['a'\], pruned \['b'\]"),
        (lambda: retention({}, {}), "same benchmarks"),
        (lambda: retention({"a": 0.0}, {"a": 0.0}), "above their floor"),
        (lambda: corrected_retention({"a": 0.5}, {"a": 0.5}, {"a": 0.5}), r"'a': \(0.5, 0.5\)"),
        (lambda: corrected_retention({"a": float("nan")}, {"a": 0.5}, {"a": 0.5}), "above their floor"),
        (lambda: corrected_retention({"a": 0.5}, {"a": 0.5}, {}), "same benchmarks"),
        (lambda: flips([1], [1, 0]), "equally long"),
        (lambda: flips([1], [float("nan")]), "seen by both"),
        (lambda: paired_difference([1], [1]), "at least two samples"),
        (lambda: paired_difference([1, 0], [1, 1], ["a", "a"]), "two clusters"),
        (lambda: paired_difference([1, 0], [1, 1], ["a"]), "one cluster per sample"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
