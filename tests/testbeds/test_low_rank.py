"""Differences of low rank: exact where the rank suffices, else the best of their rank; refused where nothing fits."""

import pytest
import torch
from torch import nn

from tamp_lightning.testbeds.low_rank import PARTS, factors, low_rank_difference, merge_low_rank, split_low_rank

NAME = "language_model.layers.0.q_proj.weight"


def model():
    torch.manual_seed(0)
    layer = nn.ModuleDict({"q_proj": nn.Linear(12, 8, bias=False), "norm": nn.LayerNorm(12)})
    return nn.ModuleDict({"language_model": nn.ModuleDict({"layers": nn.ModuleList([layer])})})


def product(found):
    up, up_scale, down, down_scale = (found[part].double() for part in PARTS)
    return (up * up_scale) @ (down_scale[:, None] * down)


def test_whole_numbers_of_rank_one_come_back_exactly():
    difference = torch.outer(torch.tensor([127.0, -3.0, 0.0]), torch.tensor([127.0, 5.0]))
    torch.testing.assert_close(product(factors(difference, 1)).float(), difference, rtol=1e-6, atol=1e-4)


def test_holds_as_much_as_the_best_of_its_rank():
    torch.manual_seed(1)
    difference = torch.randn(40, 30)
    left = (product(factors(difference, 10)) - difference.double()).square().sum()
    best = torch.linalg.svdvals(difference.double())[10:].square().sum()
    assert best <= left < 1.001 * best + 0.001 * difference.square().sum()


def test_a_difference_of_zero_is_nothing():
    assert not product(factors(torch.zeros(4, 6), 2)).any()


def test_merged_is_what_was_trained():
    before, trained = model(), model()
    with torch.no_grad():
        trained.language_model.layers[0].q_proj.weight += 0.01 * torch.randn(8, 12)
    found = low_rank_difference(trained.state_dict(), before.state_dict(), 8)
    assert set(found) == {f"{NAME.removesuffix('.weight')}.{part}" for part in PARTS}
    assert {found[k].dtype for k in found} == {torch.int8, torch.float32}
    ours, others = split_low_rank(found | {"language_model.layers.0.norm.weight": torch.ones(12)})
    assert set(ours) == set(found)
    assert set(others) == {"language_model.layers.0.norm.weight"}
    merge_low_rank(before, ours)
    torch.testing.assert_close(before.state_dict()[NAME], trained.state_dict()[NAME], rtol=0, atol=5e-4)


def test_a_tower_is_not_taken_for_the_language_model():
    state = {"vision_tower.layers.0.q_proj.weight": torch.ones(3, 3)}
    assert low_rank_difference(state, state, 1) == {}


@pytest.mark.parametrize("lost", PARTS)
def test_a_part_without_its_partners_is_refused(lost):
    dense = model()
    found = low_rank_difference(dense.state_dict(), dense.state_dict(), 2)
    del found[f"{NAME.removesuffix('.weight')}.{lost}"]
    with pytest.raises(ValueError, match=r"q_proj needs low_rank_up, .* and a weight in the model"):
        merge_low_rank(dense, found)
