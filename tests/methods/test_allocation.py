import math

import pytest
import torch

from tamp_lightning.methods.allocation import Constant, Das, Uniform
from tamp_lightning.ops.allocation import allocate

SIZES = {"q": 4096, "k": 1024, "up": 14337}


def test_uniform_is_equal_to_within_a_weight():
    kept = Uniform().kept(SIZES, 0.55)
    assert sum(kept.values()) == round(sum(SIZES.values()) * 0.45)
    assert all(abs(kept[k] - n * 0.45) < 1 for k, n in SIZES.items())


def test_constant_is_das_with_equal_scores():
    kept = Constant().kept(SIZES, 0.5)
    assert kept == Das().kept(SIZES, 0.5, dict.fromkeys(SIZES, 0.7))
    assert kept["k"] == SIZES["k"]


def test_das_passes_its_constants_on():
    scores = {"q": 1.0, "k": 2.0, "up": 1.5}
    das = Das(cap_margin=0.2, floor=0.3, size_weighted=True)
    expected = allocate(scores, SIZES, sparsity=0.5, cap=0.7, floor=0.3, size_weighted=True)
    assert das.kept(SIZES, 0.5, scores) == expected
    # the cap never passes 1
    assert sum(Das().kept(SIZES, 0.95, scores).values()) == round(sum(SIZES.values()) * 0.05)


def test_das_score_of_two_samples_by_hand():
    outputs = torch.tensor([[[1.0, 0], [0, 1], [9, 9]], [[1, 0], [1, 0], [0, 1]]])
    modality = torch.tensor([[0, 0, 1], [0, 0, 1]])
    valid = torch.tensor([[True, True, False], [True, True, True]])
    cosines = Das().score(outputs, modality, valid)
    assert cosines.shape == (2, 4, 4)
    # text pairs 0 and 1, mean .5; text-image only in the second, 0; no image pair
    assert Das().combine(cosines) == pytest.approx((0.5 + 1) / 2)
    assert Das(positive_only=True).score(outputs, modality, valid)[0, 0, 0].isnan()


def test_das_with_nothing_to_compare():
    with pytest.raises(ValueError, match="nothing to compare in 3 samples"):
        Das().combine(torch.full((3, 4, 4), math.nan))


def test_das_needs_scores_and_sensible_constants():
    with pytest.raises(ValueError, match="got no scores"):
        Das().kept(SIZES, 0.5)
    with pytest.raises(ValueError, match=r"floor is 0.6"):
        Das(floor=0.6).kept(SIZES, 0.5, dict.fromkeys(SIZES, 1.0))
    with pytest.raises(ValueError, match=r"das.cap_margin is -0.1"):
        Das(cap_margin=-0.1)
    with pytest.raises(ValueError, match=r"constant.cap_margin is nan"):
        Constant(cap_margin=math.nan)
    with pytest.raises(ValueError, match=r"das.floor is 1"):
        Das(floor=1)


def test_what_each_needs():
    assert [rule.basis for rule in (Uniform, Constant, Das)] == ["nothing", "nothing", "outputs"]
