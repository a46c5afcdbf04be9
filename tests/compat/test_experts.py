"""What transformers does not promise about layers of experts."""

from __future__ import annotations

import pytest
import torch
from transformers import JetMoeForCausalLM

from tamp_lightning.compat.experts import (
    activated,
    are_experts,
    call_of,
    expert_count,
    expert_matrices,
    projected,
    put_out,
    token_count,
)

from ..zoo.experts import WITH_EXPERTS
from ..zoo.newer import NEWER, jetmoe


def layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    return [module for module in model.modules() if are_experts(module)]


@torch.no_grad()
@pytest.mark.parametrize("name", ["mixtral", "aria", "gpt_oss", "gemma4_moe", "llama4_moe", "step3p7"])
def test_experts_put_together_from_their_parts_are_what_the_layer_computes(name: str) -> None:
    family, calls = WITH_EXPERTS[name], []
    model = family.make()
    for layer in layers(model):
        layer.register_forward_hook(lambda layer, args, output: calls.append((layer, args, output)))
    batch = family.batches()[-1]
    model(**batch, use_cache=False)
    assert calls
    for layer, args, output in calls:
        call, count = call_of(layer, args, output), batch["input_ids"].numel()
        assert expert_count(layer) == 4
        assert token_count(layer, args[0]) == len(call.output) == count
        assert torch.bincount(call.tokens, minlength=count).mul(call.chosen.shape[1]).tolist() == [2] * count
        assert bool((call.tokens.diff() >= 0).all())
        own = torch.zeros_like(call.output)
        for x, experts, gates, token in zip(call.hidden, call.chosen, call.gates, call.tokens, strict=True):
            for expert, gate in zip(experts.tolist(), gates, strict=True):
                own[token] += gate * put_out(layer, expert, activated(layer, projected(layer, expert, x[None])))[0]
        torch.testing.assert_close(own, call.output)


@pytest.mark.parametrize("name", ["mixtral", "aria", "gpt_oss", "llama4_moe", "step3p7"])
def test_matrices_make_up_the_parameters(name: str) -> None:
    layer = layers(WITH_EXPERTS[name].make())[0]
    seen = {parameter: torch.zeros_like(layer.get_parameter(parameter)) for parameter in ("gate_up_proj", "down_proj")}
    for _, parameter, rows, transposed, _ in expert_matrices(layer):
        for matrix in seen[parameter]:
            (matrix.mT if transposed else matrix)[slice(*rows)] += 1
    assert all(bool((count == 1).all()) for count in seen.values())


def test_what_keeps_or_calls_experts_in_another_way_is_no_layer_of_experts() -> None:
    assert not layers(JetMoeForCausalLM(jetmoe()))
    assert not layers(NEWER["qwen3_5"].make())
