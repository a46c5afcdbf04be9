"""What transformers does not promise about layers of experts."""

from __future__ import annotations

import pytest
import torch

from tamp_lightning.compat.experts import (
    activated,
    are_experts,
    expert_count,
    expert_matrices,
    projected,
    put_out,
)

from ..zoo.experts import WITH_EXPERTS
from ..zoo.newer import NEWER


def layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    return [module for module in model.modules() if are_experts(module)]


@torch.no_grad()
@pytest.mark.parametrize("name", ["mixtral", "aria", "gpt_oss", "gemma4_moe"])
def test_an_expert_put_together_from_its_parts_is_what_the_layer_computes(name: str) -> None:
    layer = layers(WITH_EXPERTS[name].make())[0]
    assert expert_count(layer) == 4
    tokens, one = torch.randn(5, 32), torch.ones(5, 1)
    for expert in range(4):
        own = put_out(layer, expert, activated(layer, projected(layer, expert, tokens)))
        index = torch.full((5, 1), expert)
        torch.testing.assert_close(own, layer(tokens, index, one))


@pytest.mark.parametrize("name", ["mixtral", "aria", "gpt_oss"])
def test_matrices_make_up_the_parameters(name: str) -> None:
    layer = layers(WITH_EXPERTS[name].make())[0]
    seen = {parameter: torch.zeros_like(layer.get_parameter(parameter)) for parameter in ("gate_up_proj", "down_proj")}
    for _, parameter, rows, transposed, _ in expert_matrices(layer):
        for matrix in seen[parameter]:
            (matrix.mT if transposed else matrix)[slice(*rows)] += 1
    assert all(bool((count == 1).all()) for count in seen.values())


def test_what_the_registry_does_not_run_is_no_layer_of_experts() -> None:
    assert not layers(NEWER["llama4_moe"].make())
    assert not layers(NEWER["qwen3_5"].make())
