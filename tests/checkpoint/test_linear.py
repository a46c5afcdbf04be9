"""A linear is one key wherever it is looked up."""

import pytest
import torch
from torch import nn

from tamp_lightning.checkpoint.linear import OUTSIDE, Linear


def test_it_finds_its_weight_in_its_block_and_outside():
    block = nn.ModuleDict({"mlp": nn.ModuleDict({"up": nn.Linear(3, 2)})})
    inside = Linear(4, "mlp.up", "layers.4.mlp.up", (2, 3))
    assert inside.weight(block) is block["mlp"]["up"].weight
    assert (str(inside), inside.parameter) == ("layers.4.mlp.up", "mlp.up.weight")
    model = nn.ModuleDict({"tower": block})
    assert Linear(OUTSIDE, "tower.mlp.up", "tower.mlp.up", (2, 3)).weight(model) is block["mlp"]["up"].weight
    with pytest.raises(AttributeError):
        Linear(0, "mlp.down", "layers.0.mlp.down", (2, 3)).weight(block)


def test_where_it_is_stored_does_not_make_it_another():
    one, other = (Linear(0, "q", "layers.0.q", (2, 2), key=key) for key in (None, "model.layers.0.q.weight"))
    assert {one: torch.ones(1)}[other] == 1
    assert one != Linear(1, "q", "layers.1.q", (2, 2))
