"""The allocation `diversity`: exact budgets, uniform where it should be, DAS's own score."""

import pytest
import torch

from tamp_lightning.methods.allocation import Das, Uniform
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.tilt import Diversity
from tamp_lightning.ops.tilt import tilted_sparsity

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


@pytest.mark.parametrize("within", ["all", "kind"])
def test_widths_that_are_tried_leave_every_block_as_many_weights(within: str) -> None:
    rule = Diversity(widths=(-0.05, 0.0, 0.1), within=within)
    kept = [rule.kept_at(width, SIZES, 0.6, SCORES) for width in rule.widths]
    assert kept[1] == Uniform().kept(SIZES, 0.6)
    for one in kept:
        assert list(one) == list(SIZES)
        sums = [sum(value for name, value in one.items() if f".{block}." in name) for block in (0, 1)]
        assert sums == [sum(value for name, value in kept[1].items() if f".{block}." in name) for block in (0, 1)]
        assert all(abs(1 - one[k] / n - 0.6) <= 0.1 + 1e-3 for k, n in SIZES.items())
    assert kept[0] != kept[1] != kept[2]
    assert rule.kept(SIZES, 0.6, SCORES) == kept[0]


def test_a_level_tilt_by_hand() -> None:
    """Off the mean of their kind are q -1 and 1, up -2 and 2 (lower scores lean up); off their block's, by size 1 to 3,
    where the means are 1.75 and -1.75: q -0.75 and 0.75, up 0.25 and -0.25."""
    sizes = {"m.0.q": 1, "m.0.up": 3, "m.1.q": 1, "m.1.up": 3}
    scores = {"m.0.q": 1.0, "m.0.up": 2.0, "m.1.q": 3.0, "m.1.up": 6.0}
    lean = tilted_sparsity(scores, sizes, 0.3, "kind", level=True)
    assert list(lean.values()) == pytest.approx([-0.3, 0.1, 0.3, -0.1])


def test_impossible_trials() -> None:
    with pytest.raises(ValueError, match=r"diversity.widths is \(0.1, inf\); each has to be a finite number"):
        Diversity(widths=(0.1, float("inf")))
    with pytest.raises(ValueError, match=r"diversity.held_out is 0.6"):
        Diversity(widths=(0.1,), held_out=0.6)
    with pytest.raises(ValueError, match=r"diversity.widths is \(0.1,\) with within: block"):
        Diversity(widths=(0.1,), within="block")
    tried = {"allocation": "diversity", "diversity": Diversity(widths=(0.0, 0.1))}
    with pytest.raises(ValueError, match=r"tokens is modality_mix; diversity.widths tries something else"):
        Method(tokens="modality_mix", **tried)
    with pytest.raises(ValueError, match=r"allocation is diversity; mode: one_shot passes every block once"):
        Method(tokens="all", mode="one_shot", **tried)
    assert Method(tokens="all", **tried).prune_stages == ("collect", "mix")
