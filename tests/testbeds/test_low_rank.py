"""Low-rank updates: nothing at first, the same beside the weight as merged into it, refused where they do not fit."""

import pytest
import torch
from torch import nn

from tamp_lightning.testbeds.low_rank import LINEARS, add_low_rank, low_rank_state, merge_low_rank, split_low_rank


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.head = nn.Linear(6, 4, bias=False), nn.Linear(4, 3, bias=False)

    def forward(self, x):
        return self.head(self.q_proj(x))


def trained():
    torch.manual_seed(0)
    model = nn.Sequential(Block())
    plain = {k: v.clone() for k, v in model.state_dict().items()}
    add_low_rank(model, 2)
    return model, plain


def test_nothing_changes_before_training():
    model, plain = trained()
    x = torch.randn(5, 6)
    torch.testing.assert_close(model(x), x @ plain["0.q_proj.weight"].T @ plain["0.head.weight"].T)
    assert set(low_rank_state(model)) == {"0.q_proj.low_rank_down", "0.q_proj.low_rank_up"}


def test_merged_is_what_was_trained():
    model, plain = trained()
    with torch.no_grad():
        model[0].q_proj.low_rank_up.normal_()
    x = torch.randn(5, 6)
    merged = nn.Sequential(Block())
    merged.load_state_dict(plain)
    factors, others = split_low_rank(model.state_dict())
    assert set(others) == {"0.q_proj.weight", "0.head.weight"}
    merge_low_rank(merged, factors)
    torch.testing.assert_close(merged(x), model(x))
    assert not torch.equal(merged[0].q_proj.weight, plain["0.q_proj.weight"])
    torch.testing.assert_close(merged[0].head.weight, plain["0.head.weight"], rtol=0, atol=0)


def test_gradients_reach_the_factors_as_they_would_the_product():
    model, _ = trained()
    layer = model[0].q_proj
    with torch.no_grad():
        layer.low_rank_up.normal_()
    layer.weight.requires_grad_(False)
    x, pull = torch.randn(5, 6), torch.randn(5, 4)
    (layer(x) * pull).sum().backward()
    full = pull.T @ x
    torch.testing.assert_close(layer.low_rank_up.grad, full @ layer.low_rank_down.detach().T)
    torch.testing.assert_close(layer.low_rank_down.grad, layer.low_rank_up.detach().T @ full)
    assert layer.weight.grad is None


@pytest.mark.parametrize("lost", ["0.q_proj.low_rank_down", "0.q_proj.low_rank_up"])
def test_a_factor_without_its_partner_is_refused(lost):
    model, _ = trained()
    factors = {k: v for k, v in low_rank_state(model).items() if k != lost}
    with pytest.raises(ValueError, match=r"0\.q_proj needs low_rank_down, low_rank_up and a weight"):
        merge_low_rank(nn.Sequential(Block()), factors)


def test_a_bias_is_refused():
    model = nn.Module()
    setattr(model, LINEARS[0], nn.Linear(3, 3))
    with pytest.raises(ValueError, match="has a bias"):
        add_low_rank(model, 2)
