"""The likeliest option, against lm-eval's multiple_choice."""

import pytest
import torch

from tamp_lightning.metrics import LikelihoodChoice


def test_likelihood_normalisation_and_margin():
    nll, inf = torch.tensor([[4.0, 3.0, torch.inf], [2.0, 2.0, 9.0]]), torch.inf
    lengths, targets = torch.tensor([[4, 1, 0], [1, 1, 1]]), torch.tensor([0, 1])
    for normalize, accuracy, margins in (("token", 0.5, [2, 0]), ("sum", 0, [-1, 0]), ("char", 0.5, [2, 0])):
        metric = LikelihoodChoice(3, normalize)
        metric.update(torch.tensor([2, 0]), nll, lengths, targets)
        result = metric.compute()
        assert result["accuracy"].item() == accuracy
        assert result["margin"].item() == pytest.approx(sum(margins) / 2)
        assert metric.margins().nan_to_num(-9).tolist() == pytest.approx([margins[1], -9, margins[0]])
    with pytest.raises(ValueError, match="NaN"):
        metric.update(torch.tensor([0]), torch.tensor([[torch.nan, 1.0]]), lengths[:1, :2], targets[:1])
    with pytest.raises(ValueError, match="two options"):
        metric.update(torch.tensor([0]), torch.tensor([[1.0, inf]]), lengths[:1, :2], targets[:1])
    with pytest.raises(ValueError, match="targets in"):
        metric.update(torch.tensor([0]), torch.tensor([[1.0, 2.0]]), lengths[:1, :2], torch.tensor([2]))


ONE = torch.tensor([0])
NLL = torch.tensor([[3.0, 1.0, 2.0, torch.inf]])
LENGTHS = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
TEXTS = [["red", "green", "blue"]]


@pytest.mark.parametrize(
    ("target", "accuracy", "margin"),
    [
        (1, 1, 1.0),
        ([1, 2], 1, 2.0),
        ([0, 2], 0, -1.0),
        ([2], 0, -1.0),
        ("green", 1, 1.0),
        ("red", 0, -2.0),
        (["red", "green"], 1, 1.0),
        ([0, 1, 2], 1, 1e6),
    ],
)
def test_likelihood_with_several_right_options_and_with_texts(target, accuracy, margin):
    """lm-eval's multiple_choice: right if the likeliest is one of the gold ones; a text is looked up in the options."""
    metric = LikelihoodChoice(1)
    metric.update(ONE, NLL, LENGTHS, [target], TEXTS)
    found = metric.compute()
    assert found["accuracy"] == accuracy
    assert found["margin"] == pytest.approx(margin)


def test_questions_of_one_and_of_several_golds_share_a_batch():
    metric = LikelihoodChoice(2)
    metric.update(torch.tensor([1, 0]), NLL.repeat(2, 1), LENGTHS.repeat(2, 1), [1, [0, 2]])
    assert metric.values().tolist() == [0.0, 1.0]
