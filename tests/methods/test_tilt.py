"""The allocation `diversity`: exact budgets, uniform where it should be, DAS's own score."""

import pytest
import torch

from tamp_lightning.methods.allocation import Das, Uniform
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.tilt import Diversity

SIZES = {"m.layers.0.q": 4096, "m.layers.0.up": 14337, "m.layers.1.q": 4096, "m.layers.1.up": 14337}
SCORES = dict(zip(SIZES, (0.2, 0.6, 0.4, 0.7), strict=True))


@pytest.mark.parametrize("within", ["all", "kind", "block"])
def test_meets_the_budget_exactly_and_keeps_to_its_width(within: str) -> None:
    kept = Diversity(width=0.05, within=within).kept(SIZES, 0.6, SCORES)
    assert sum(kept.values()) == round(sum(SIZES.values()) * 0.4)
    assert all(0.55 - 1e-3 <= 1 - kept[k] / n <= 0.65 + 1e-3 for k, n in SIZES.items())


def test_more_diverse_of_a_kind_keeps_more_and_equal_scores_are_uniform() -> None:
    kept = Diversity().kept(SIZES, 0.5, SCORES)
    assert kept["m.layers.1.q"] > kept["m.layers.0.q"]
    assert Diversity().kept(SIZES, 0.5, dict.fromkeys(SIZES, 0.3)) == Uniform().kept(SIZES, 0.5)
    assert Diversity(width=0).kept(SIZES, 0.5, SCORES) == Uniform().kept(SIZES, 0.5)


def test_a_wide_tilt_at_an_extreme_target_still_meets_it() -> None:
    kept = Diversity(width=0.3).kept(SIZES, 0.9, SCORES)
    assert sum(kept.values()) == round(sum(SIZES.values()) * 0.1)
    assert min(kept.values()) >= 0


def test_measures_what_das_measures() -> None:
    outputs, modality = torch.randn(2, 6, 4), torch.tensor([[0, 0, 1, 1, 0, 1]] * 2)
    valid = torch.ones(2, 6, dtype=torch.bool)
    own, das = Diversity(), Das()
    assert own.combine(own.score(outputs, modality, valid)) == das.combine(das.score(outputs, modality, valid))
    assert Method(allocation="diversity").measure_stages == ("collect",)


def test_one_pair_of_modalities_by_hand() -> None:
    """Cosines of two samples: the second has no picture, so that text and image are those of the first."""
    cosines = torch.full((2, 4, 4), torch.nan)
    cosines[:, 0, 0] = torch.tensor([0.5, 0.1])
    cosines[0, 0, 1] = cosines[0, 1, 0] = -0.2
    assert Diversity(pair="text-text").combine(cosines) == pytest.approx(1 - 0.3)
    assert Diversity(pair="image-text").combine(cosines) == Diversity(pair="text-image").combine(cosines)
    assert Diversity(pair="text-image").combine(cosines) == pytest.approx(1.2)
    with pytest.raises(ValueError, match=r"diversity.pair is video-video; no two such tokens are in any of 2 samples"):
        Diversity(pair="video-video").combine(cosines)


@pytest.mark.parametrize("pair", ["text", "text-smell", "text-text-text", ""])
def test_no_pair(pair: str) -> None:
    with pytest.raises(ValueError, match=f"diversity.pair is '{pair}'; it has to be all, or two of text, image"):
        Diversity(pair=pair)


def test_impossible() -> None:
    with pytest.raises(ValueError, match=r"diversity.width is -0.1"):
        Diversity(width=-0.1)
    with pytest.raises(ValueError, match=r"diversity.within is 'row'"):
        Diversity(within="row")
    with pytest.raises(ValueError, match="got no scores"):
        Diversity().kept(SIZES, 0.5)
