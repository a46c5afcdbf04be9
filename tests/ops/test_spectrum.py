import math

import numpy as np
import pytest
import torch

from tamp_lightning.ops.spectrum import hill_alpha


def with_spectrum(eigenvalues, rows, columns, seed=0):
    """A matrix whose W^T W has these eigenvalues."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(rows, len(eigenvalues), generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(columns, len(eigenvalues), generator=generator, dtype=torch.float64)).Q
    return (left * torch.tensor(eigenvalues, dtype=torch.float64).sqrt()) @ right.T


def literal_fit(eigenvalues, start):
    tail = sorted(eigenvalues)[start:]
    alpha = 1 + len(tail) / sum(math.log(v / tail[0]) for v in tail)
    distance = max(abs(1 - (v / tail[0]) ** (1 - alpha) - i / len(tail)) for i, v in enumerate(tail))
    return alpha, distance


def test_mid_by_hand():
    # ascending 1 1 2 4: the tail starts at index 2, so 1 + 2 / (ln 1 + ln 2)
    weight = with_spectrum([1.0, 1, 2, 4], 6, 5)
    assert hill_alpha(weight) == pytest.approx(1 + 2 / math.log(2), rel=1e-5)
    assert hill_alpha(100 * weight.T.float()) == pytest.approx(1 + 2 / math.log(2), rel=1e-5)


def test_mid_equals_the_literal_fit():
    weight = torch.randn(20, 33, generator=torch.Generator().manual_seed(0))
    values = np.linalg.svd(weight.double().numpy(), compute_uv=False) ** 2
    assert hill_alpha(weight) == pytest.approx(literal_fit(values, 10)[0], rel=1e-4)
    assert hill_alpha(weight.bfloat16()) == pytest.approx(hill_alpha(weight), rel=0.05)


def test_peak_equals_trying_every_candidate():
    for seed in range(4):
        weight = torch.randn(60, 80, generator=torch.Generator().manual_seed(seed)).double()
        values = sorted(np.linalg.svd(weight.numpy(), compute_uv=False) ** 2)
        counts, edges = np.histogram(np.log10(values), 100)
        peak = 10 ** edges[counts.argmax()]
        fits = [literal_fit(values, i) for i in range(59) if 0.95 * peak <= values[i] <= 1.5 * peak]
        expected = min(fits, key=lambda fit: fit[1])[0]
        assert hill_alpha(weight, xmin="peak") == pytest.approx(expected, rel=1e-3)


def test_a_heavier_tail_has_a_smaller_alpha_and_power_laws_are_recovered():
    uniform = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    for xmin in ("mid", "peak"):
        alphas = []
        for alpha in (2.0, 3.0, 5.0):
            # quantiles of a power law with this exponent
            weight = with_spectrum((uniform ** (-1 / (alpha - 1))).tolist(), 200, 210)
            alphas.append(hill_alpha(weight, xmin=xmin))
            assert alphas[-1] == pytest.approx(alpha, rel=0.1)
        assert alphas == sorted(alphas)


def test_rank_deficient_and_degenerate_matrices():
    weight = with_spectrum([1.0, 1, 2, 4], 40, 50)  # 36 singular values are rounding only
    for xmin in ("mid", "peak"):
        assert hill_alpha(weight, xmin=xmin) == pytest.approx(
            hill_alpha(with_spectrum([1.0, 1, 2, 4], 4, 4), xmin=xmin)
        )
        assert hill_alpha(torch.eye(5), xmin=xmin) == math.inf
        assert hill_alpha(torch.ones(3, 4), xmin=xmin) == math.inf
    for bad in (torch.zeros(2, 3), torch.tensor([[1.0, math.nan]]), torch.ones(3)):
        with pytest.raises(ValueError, match="has to be a finite matrix"):
            hill_alpha(bad)
    with pytest.raises(ValueError, match="xmin is 'median'"):
        hill_alpha(weight, xmin="median")
