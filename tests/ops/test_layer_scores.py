import math

import numpy as np
import pytest
import torch

from tamp_lightning.ops.allocation import to_counts
from tamp_lightning.ops.layer_scores import (
    alpha_sparsity,
    dlp_sparsity,
    outlier_ratio,
    owl_sparsity,
    ramp_sparsity,
)


def literal_width(scores, sparsity, half):
    """The lines that OWL and DLP share: kept shares, and what they leave."""
    scores = np.array(scores)
    scaled = (scores - scores.min()) * (1 / (scores.max() - scores.min()) * half * 2)
    return 1 - (scaled - scaled.mean() + (1 - sparsity))


def literal_alpha(alphas, sizes, sparsity, epsilon):
    alphas, sizes = np.array(alphas), np.array(sizes)
    low, high = 1 - epsilon, 1 + epsilon
    ratios = (alphas - alphas.min()) / (alphas.max() - alphas.min()) * (high - low) + low
    return ratios * (sizes.sum() * sparsity / (sizes * ratios).sum())


def test_outliers_by_hand():
    # mean of all eight is 2: above 2 * 2 are 5 and 7, above 3 * 2 only 7, and 2 is not above 1 * 2
    first, second = torch.tensor([[1.0, 1, 5], [0, 0, 0]]), torch.tensor([[7.0, 2]])
    assert [outlier_ratio([first, second], m) for m in (1, 2, 3, 4)] == [25, 25, 12.5, 0]
    assert outlier_ratio(torch.cat([first.flatten(), second.flatten()]), 2) == 25
    # one mean for the block, not one per linear
    assert outlier_ratio([first], 2) + outlier_ratio([second], 1.5) == 100 / 6 + 50


def test_outliers_equal_the_reference_on_random_scores():
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(s, generator=generator).abs() ** 3 for s in ((8, 5), (3, 5), (5, 16))]
    everything = torch.cat([p.flatten() for p in parts])
    for m in (1, 3, 5, 7):
        expected = float((everything > everything.mean() * m).sum()) / everything.numel() * 100
        assert outlier_ratio(parts, m) == pytest.approx(expected)
        assert outlier_ratio(everything, m) == outlier_ratio(parts, m)


def test_owl_gives_more_outliers_a_lower_sparsity():
    ratios = [2.0, 7, 3, 4]
    got = owl_sparsity(ratios, 0.7)
    # scaled to 0, .16, .032, .064; mean .064
    torch.testing.assert_close(got, torch.tensor([0.764, 0.604, 0.732, 0.7], dtype=torch.float64))
    assert got.argsort(descending=True).tolist() == torch.tensor(ratios).argsort().tolist()
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        more = torch.rand(2, 12, generator=generator, dtype=torch.float64)
        sparsity = owl_sparsity(more[0], 0.5)
        np.testing.assert_allclose(sparsity, literal_width(more[0].tolist(), 0.5, 0.08), atol=1e-12)
        assert (sparsity[more[0].argsort()].diff() < 0).all()
        worse = more[0].clone()
        worse[3] += more[1, 0] + 0.01
        assert owl_sparsity(worse, 0.5)[3] < sparsity[3]


def test_dlp_prunes_larger_means_more():
    means = [1.0, 2, 5, 3]
    total = sum(means)
    literal = literal_width([1 - m / total for m in means], 0.7, 0.15)
    got = dlp_sparsity(means, 0.7)
    np.testing.assert_allclose(got, literal, atol=1e-12)
    assert got.argsort().tolist() == [0, 1, 3, 2]
    assert float(got.max() - got.min()) == pytest.approx(0.3)


def test_alpha_prunes_lighter_tails_more_and_hits_the_target_by_size():
    alphas, sizes = torch.tensor([3.0, 5, 4, 2.5]), [10, 10, 10, 30]
    got = alpha_sparsity(alphas, sizes, 0.6)
    np.testing.assert_allclose(got, literal_alpha(alphas.tolist(), sizes, 0.6, 0.3), atol=1e-12)
    assert float((got * torch.tensor(sizes)).sum()) / sum(sizes) == pytest.approx(0.6)
    assert got.argsort().tolist() == alphas.argsort().tolist()
    # factors .5 and 1.5, of mean 1
    assert alpha_sparsity([1.0, 2], [7, 7], 0.5, epsilon=0.5).tolist() == [0.25, 0.75]
    assert float(alpha_sparsity(alphas, sizes, 0.9, epsilon=1.0).max()) == 0.99


def test_ramp_prunes_later_blocks_more():
    got = ramp_sparsity(4, 0.5)
    torch.testing.assert_close(got, torch.tensor([0.35, 0.45, 0.55, 0.65], dtype=torch.float64))
    assert ramp_sparsity(1, 0.3).tolist() == [0.3]
    # no room above: the ramp narrows instead of losing its mean
    torch.testing.assert_close(ramp_sparsity(3, 0.9), torch.tensor([0.8, 0.9, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("rule", [owl_sparsity, dlp_sparsity, lambda v, s: alpha_sparsity(v, [2] * len(v), s)])
def test_equal_blocks_are_uniform_and_extremes_stay_in_range(rule):
    assert rule([0.0, 0, 0], 0.45).tolist() == [0.45] * 3
    assert rule([4.0], 0.45).tolist() == [0.45]
    for sparsity in (0.0, 0.02, 0.5, 0.98, 1.0):
        got = rule([1.0, 2, 9], sparsity)
        assert ((got >= 0) & (got <= 1)).all()
    assert torch.equal(rule([1.0, 2, 9], 0.5), rule(torch.tensor([1.0, 2, 9]), 0.5))
    with pytest.raises(ValueError, match="all have to be finite"):
        rule([1.0, math.nan], 0.5)
    with pytest.raises(ValueError, match=r"sparsity is 1.5"):
        rule([1.0, 2], 1.5)


def test_ratios_become_exact_counts():
    sizes = {"a": 1000, "b": 3001, "c": 777, "d": 50}
    rules = {
        "owl": owl_sparsity([1.0, 5, 2, 9], 0.6),
        "dlp": dlp_sparsity([1.0, 5, 2, 9], 0.6),
        "alpha": alpha_sparsity([1.0, 5, 2, 9], list(sizes.values()), 0.6),
        "ramp": ramp_sparsity(4, 0.6),
    }
    for ratios in rules.values():
        kept = to_counts(dict(zip(sizes, ratios.tolist(), strict=True)), sizes, total_sparsity=0.6)
        assert abs(1 - sum(kept.values()) / sum(sizes.values()) - 0.6) < 1e-4
        shares = [1 - kept[k] / n for k, n in sizes.items()]
        assert np.argsort(shares).tolist() == ratios.argsort().tolist()


def test_refuses():
    with pytest.raises(ValueError, match="no score"):
        outlier_ratio([])
    with pytest.raises(ValueError, match="m is 0"):
        outlier_ratio(torch.ones(2), 0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        outlier_ratio([torch.ones(2), torch.tensor([math.nan])])
    with pytest.raises(ValueError, match="lam is -1"):
        owl_sparsity([1.0, 2], 0.5, lam=-1)
    with pytest.raises(ValueError, match="width is nan"):
        ramp_sparsity(3, 0.5, width=math.nan)
    with pytest.raises(ValueError, match="num_blocks is 0"):
        ramp_sparsity(0, 0.5)
    with pytest.raises(ValueError, match="expected one number per block"):
        dlp_sparsity(torch.ones(2, 2), 0.5)
    with pytest.raises(ValueError, match="sizes are"):
        alpha_sparsity([1.0, 2], [3], 0.5)
    with pytest.raises(ValueError, match="epsilon is 2"):
        alpha_sparsity([1.0, 2], [3, 3], 0.5, epsilon=2)
