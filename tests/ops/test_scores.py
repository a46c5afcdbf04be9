import pytest
import torch

from tamp_lightning.ops.scores import magnitude, ria, wanda

WEIGHT = torch.tensor([[1.0, -2, 0], [-3, 4, 0]])
SQ_NORM = torch.tensor([4.0, 9, 16], dtype=torch.float64)


def test_by_hand():
    assert magnitude(WEIGHT).tolist() == [[1, 2, 0], [3, 4, 0]]
    assert wanda(WEIGHT, SQ_NORM).tolist() == [[2, 6, 0], [6, 12, 0]]
    # |w| over its column's sum plus over its row's sum, times the norm to the power
    expected = torch.tensor([[1 / 4 + 1 / 3, 2 / 6 + 2 / 3, 0], [3 / 4 + 3 / 7, 4 / 6 + 4 / 7, 0]])
    torch.testing.assert_close(ria(WEIGHT, SQ_NORM, power=0), expected)
    torch.testing.assert_close(ria(WEIGHT, SQ_NORM), expected * torch.tensor([2.0, 3, 4]).sqrt())


def test_zero_rows_score_zero():
    assert ria(torch.tensor([[0.0, 0], [1, 0]]), torch.ones(2))[0].tolist() == [0, 0]


def test_bfloat16_weights_are_scored_in_float32_and_left_alone():
    weight = WEIGHT.bfloat16()
    for score in (magnitude(weight), wanda(weight, SQ_NORM), ria(weight, SQ_NORM)):
        assert score.dtype == torch.float32
    full = WEIGHT.clone().requires_grad_()
    assert not wanda(full, SQ_NORM).requires_grad
    assert torch.equal(full, WEIGHT)


@pytest.mark.parametrize("score", [wanda, ria])
def test_shapes_are_checked(score):
    with pytest.raises(ValueError, match="one per input feature"):
        score(WEIGHT, torch.ones(2))
