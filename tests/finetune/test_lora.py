"""A masked low-rank update: what is trained, what is merged."""

import copy

import pytest
import torch
from torch.nn import functional as F

from tamp_lightning.finetune.lora import MaskedLora, add_lora, merge_lora


def randomised(model, masks, rank=3, alpha=5.0):
    """With an update that is not zero, as after training."""
    tuner = add_lora(model, masks, masks, rank, alpha)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return tuner


@torch.no_grad()
def logits(model):
    ids = torch.arange(1, 15)[None]
    return model(input_ids=ids, use_cache=False).logits


def test_merged_model_is_the_trained_function_and_as_sparse(student):
    model, masks = student
    keys = set(model.state_dict())
    tuner = randomised(model, masks)
    trained = logits(model)
    merge_lora(tuner)
    assert set(model.state_dict()) == keys
    torch.testing.assert_close(logits(model), trained, rtol=1e-5, atol=1e-5)
    for name, mask in masks.items():
        weight = model.get_submodule(name).weight
        assert type(model.get_submodule(name)) is torch.nn.Linear
        assert torch.equal(weight == 0, ~mask)


def test_forward_is_the_masked_sum(student):
    model, masks = student
    name = "model.language_model.layers.1.mlp.up_proj"
    weight = model.get_submodule(name).weight.detach().clone()
    randomised(model, masks)
    layer = model.get_submodule(name)
    a, b = (module["default"].weight.detach() for module in (layer.lora_A, layer.lora_B))
    x = torch.randn(2, 7, weight.shape[1], generator=torch.Generator().manual_seed(0))
    expected = F.linear(x, weight + masks[name].float() * (5.0 / 3) * (b @ a))
    torch.testing.assert_close(layer(x), expected)
    unmasked = F.linear(x, weight + (5.0 / 3) * (b @ a))
    assert not torch.allclose(layer(x), unmasked, atol=1e-2)


def test_an_update_starts_at_nothing_and_alone_is_trainable(student):
    model, masks = student
    dense = copy.deepcopy(model)
    add_lora(model, masks, masks, 2, 4.0)
    assert torch.equal(logits(model), logits(dense))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {f"{name}.lora_{side}.default.weight" for name in masks for side in "AB"}


def test_gradients_are_those_of_the_masked_sum(student):
    model, masks = student
    name = "model.language_model.layers.0.self_attn.q_proj"
    randomised(model, masks)
    layer = model.get_submodule(name)
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    layer(x).square().sum().backward()
    a, b = (module["default"].weight.detach().requires_grad_() for module in (layer.lora_A, layer.lora_B))
    F.linear(x, layer.base_layer.weight + masks[name] * (5.0 / 3) * (b @ a)).square().sum().backward()
    torch.testing.assert_close(layer.lora_A["default"].weight.grad, a.grad)
    torch.testing.assert_close(layer.lora_B["default"].weight.grad, b.grad)


def test_a_linear_without_a_mask_is_updated_whole(student):
    model, masks = student
    name = "model.language_model.layers.2.mlp.down_proj"
    before = model.get_submodule(name).weight.detach().clone()
    rest = {other: mask for other, mask in masks.items() if other != name}
    tuner = add_lora(model, masks, rest, 3, 5.0)
    torch.nn.init.ones_(model.get_submodule(name).lora_B["default"].weight)
    assert isinstance(model.get_submodule(name), MaskedLora)
    merge_lora(tuner)
    assert bool((model.get_submodule(name).weight != before).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_autocast_does_not_round_the_sum_but_once(student, dtype):
    model, masks = student
    name = "model.language_model.layers.0.mlp.gate_proj"
    tuner = randomised(model, masks)
    layer, x = model.get_submodule(name), torch.randn(4, 32)
    with torch.autocast("cpu", dtype):
        trained = layer(x)
    merge_lora(tuner)
    with torch.autocast("cpu", dtype):
        merged = model.get_submodule(name)(x)
    assert torch.equal(trained, merged)
