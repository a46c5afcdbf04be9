"""The tilt of sparsities by hand, and what it promises whatever the sizes."""

import pytest

from tamp_lightning.ops.tilt import tilted_sparsity

SIZES = {"m.layers.0.q": 100, "m.layers.0.up": 400, "m.layers.1.q": 100, "m.layers.1.up": 400}
SCORES = dict(zip(SIZES, (0.1, 0.5, 0.3, 0.9), strict=True))


def test_within_a_kind_by_hand() -> None:
    # means: q 0.2, up 0.7; the farthest from its mean is up, by 0.2
    found = tilted_sparsity(SCORES, SIZES, 0.1)
    assert list(found.values()) == pytest.approx([0.05, 0.1, -0.05, -0.1])


def test_by_block_by_hand() -> None:
    # block means (0.1 + 4 * 0.5) / 5 = 0.42 and (0.3 + 4 * 0.9) / 5 = 0.78
    assert list(tilted_sparsity(SCORES, SIZES, 0.1, "block").values()) == pytest.approx([0.1, 0.1, -0.1, -0.1])


def test_among_all_by_hand() -> None:
    # mean (0.1 + 2 + 0.3 + 3.6) / 10 = 0.6; the farthest is the first, by 0.5
    assert list(tilted_sparsity(SCORES, SIZES, 0.1, "all").values()) == pytest.approx([0.1, 0.02, 0.06, -0.06])


@pytest.mark.parametrize("within", ["all", "kind", "block"])
def test_the_budget_is_met_and_equal_scores_are_uniform(within: str) -> None:
    lean = tilted_sparsity(SCORES, SIZES, 0.1, within)
    assert sum(SIZES[k] * lean[k] for k in SIZES) == pytest.approx(0)
    assert max(map(abs, lean.values())) == pytest.approx(0.1)
    assert set(tilted_sparsity(dict.fromkeys(SIZES, 0.4), SIZES, 0.1, within).values()) == {0.0}


@pytest.mark.parametrize("within", ["all", "kind", "block"])
@pytest.mark.parametrize("score", [0.1, 0.3, 0.7])
def test_rounding_is_no_difference(within: str, score: float) -> None:
    """Means of equal scores are not always the score to the bit: 7 * 0.1 + 11 * 0.1 is 18 * 0.1 less 2e-16."""
    sizes = dict(zip(SIZES, (7, 3, 11, 13), strict=True))
    assert set(tilted_sparsity(dict.fromkeys(sizes, score), sizes, 0.1, within).values()) == {0.0}


def test_experts_of_a_layer_are_of_a_kind() -> None:
    names = [f"m.layers.{b}.mlp.experts.{e}.up_proj" for b in range(2) for e in range(2)]
    found = tilted_sparsity(dict(zip(names, (1.0, 1.0, 2.0, 2.0), strict=True)), dict.fromkeys(names, 8), 0.1)
    assert list(found.values()) == pytest.approx([0.1, 0.1, -0.1, -0.1])


def test_a_score_that_is_no_number_is_named() -> None:
    with pytest.raises(ValueError, match=r"the score of m.layers.1.q is nan"):
        tilted_sparsity(SCORES | {"m.layers.1.q": float("nan")}, SIZES, 0.1)
