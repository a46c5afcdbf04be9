"""Reconstruction of pruned blocks: against plain loops over whole model blocks, and what it must leave alone."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tamp_lightning.methods.method import Method
from tamp_lightning.methods.options import Correction, Reconstruct
from tamp_lightning.passes.reconstruction import token_shares

from ..conftest import WANDA, as_batch, calibration, run, toys
from ..stream.conftest import make_llama, make_llava
from .test_literal import LINEARS, model_path, unpack

ATTENTION = [name for name in LINEARS if name.startswith("self_attn")]
MLP = [name for name in LINEARS if name.startswith("mlp")]
SAMPLES = toys("ptptptptp")
"""Nine batches of one sample each: the eighth is held out."""


def reconstructed(model: nn.Module, batches: int = 1, **options: object) -> object:
    method = dataclasses.replace(WANDA, reconstruct=Reconstruct(**options))
    return run(model, calibration(SAMPLES, batches), method)


def inputs_of(model: nn.Module, samples: list) -> list[tuple[torch.Tensor, dict]]:
    """What the first block is called with for each sample, padding and all."""
    found: list[tuple[torch.Tensor, dict]] = []
    layer = model.get_decoder().layers[0]
    handle = layer.register_forward_pre_hook(lambda _m, a, k: found.append((a[0], k)), with_kwargs=True)
    with torch.no_grad():
        for sample in samples:
            model(**as_batch([sample]), use_cache=False)
    handle.remove()
    return found


def attention_half(layer: nn.Module, hidden: torch.Tensor, kwargs: dict) -> torch.Tensor:
    """Llama's attention with its norm and residual, written out."""
    return hidden + layer.self_attn(hidden_states=layer.input_layernorm(hidden), **kwargs)[0]


def whole(layer: nn.Module, hidden: torch.Tensor, kwargs: dict) -> torch.Tensor:
    return layer(hidden, **kwargs)


@pytest.mark.parametrize("make", [make_llama, make_llava])
def test_the_first_block_is_trained_as_a_plain_loop_would(make) -> None:
    """AdamW under a mask, attention towards what the dense attention gives, then the MLP towards the dense block."""
    samples = SAMPLES if make is make_llava else toys("ttttttttt")
    steps, lr = 16, 1e-3
    pruned, model, dense = make(), make(), make()
    run(pruned, calibration(samples, 1), WANDA)
    method = dataclasses.replace(WANDA, reconstruct=Reconstruct(steps=steps, lr=lr))
    result = run(model, calibration(samples, 1), method)

    layer, before = dense.get_decoder().layers[0], make().get_decoder().layers[0]
    before.load_state_dict(pruned.get_decoder().layers[0].state_dict())
    calls = inputs_of(make(), samples)
    learn, judge = [calls[k] for k in (0, 1, 2, 3, 4, 5, 6, 8)], [calls[7]]
    for names, half in ((ATTENTION, attention_half), (MLP, whole)):
        weights = [before.get_submodule(name).weight for name in names]
        masks = [weight.detach() != 0 for weight in weights]
        before.requires_grad_(False)
        optimizer = torch.optim.AdamW([w.requires_grad_() for w in weights], lr, (0.9, 0.95), weight_decay=0.0)

        def error(call: tuple, half=half) -> torch.Tensor:
            with torch.no_grad():
                wanted = half(layer, *call)
            return F.mse_loss(half(before, *call), wanted)

        def judged() -> float:
            with torch.no_grad():
                return float(torch.stack([error(call) for call in judge]).mean())

        least = scale = judged()
        best = [w.detach().clone() for w in weights]
        for step in range(steps):
            warm, left = round(0.1 * steps), steps - step
            optimizer.param_groups[0]["lr"] = lr * (step / warm if step < warm else left / (steps - warm))
            optimizer.zero_grad()
            (error(learn[step % len(learn)]) / scale).backward()
            for weight, mask in zip(weights, masks, strict=True):
                weight.grad *= mask
            optimizer.step()
            with torch.no_grad():
                for weight, mask in zip(weights, masks, strict=True):
                    weight *= mask
            if (step + 1) % len(learn) == 0 and judged() < least:
                least, best = judged(), [w.detach().clone() for w in weights]
        assert least < 0.98 * scale, "the loop itself has to learn something"
        with torch.no_grad():
            for weight, kept in zip(weights, best, strict=True):
                weight.copy_(kept)

    for name in LINEARS:
        got = model.get_decoder().layers[0].get_submodule(name).weight
        torch.testing.assert_close(got, before.get_submodule(name).weight, rtol=1e-3, atol=1e-5, msg=name)
    assert all(row["block_error"]["reconstructed"] < row["block_error"]["pruned"] for row in result.linears.values())


@pytest.mark.parametrize("options", [{}, {"halves": False}, {"weigh": "modalities"}])
def test_lowers_the_error_and_touches_no_zero(options: dict) -> None:
    plain, model = make_llava(), make_llava()
    first = run(plain, calibration(SAMPLES, 1), WANDA)
    second = reconstructed(model, steps=24, lr=1e-3, **options)
    for name in LINEARS:
        full = f"{model_path(plain)}.0.{name}"
        assert first.linears[full]["sha256"] == second.linears[full]["sha256"]
        weight = model.get_submodule(full).weight
        assert not weight[~torch.from_numpy(unpack(second, full))].any()
        assert not torch.equal(plain.get_submodule(full).weight, weight)
    for row in second.linears.values():
        assert row["block_error"]["reconstructed"] < row["block_error"]["pruned"]
    others = {n for n, _ in make_llava().named_parameters()} - {f"{n}.weight" for n in second.linears}
    assert all(torch.equal(plain.get_parameter(n), model.get_parameter(n)) for n in others)
    assert not any(p.requires_grad and p.grad is not None for p in model.parameters())


def test_steps_that_do_not_help_change_nothing() -> None:
    plain, wild = make_llava(), make_llava()
    run(plain, calibration(SAMPLES, 1), WANDA)
    result = reconstructed(wild, steps=2, lr=50.0)
    for name, row in result.linears.items():
        assert row["block_error"]["reconstructed"] == row["block_error"]["pruned"]
        assert torch.equal(plain.get_submodule(name).weight, wild.get_submodule(name).weight)


def test_with_correction_the_target_is_the_dense_model_and_the_block_is_one() -> None:
    corrected = Method(tokens="all", allocation="uniform", correction=Correction(tau=0.5))
    options = Reconstruct(steps=24, lr=1e-3)
    result = run(make_llava(), calibration(SAMPLES, 1), dataclasses.replace(corrected, reconstruct=options))
    assert all(row["block_error"]["reconstructed"] < row["block_error"]["pruned"] for row in result.linears.values())


def test_a_block_that_came_out_worse_is_as_the_solver_left_it(monkeypatch) -> None:
    def spoil(pl_module, masks, target, options, whole):
        for linear in masks:
            linear.weight(pl_module.block).data.zero_()
        return 1.0, 2.0

    monkeypatch.setattr("tamp_lightning.passes.callbacks.pruning.reconstruct", spoil)
    plain, model = make_llava(), make_llava()
    run(plain, calibration(SAMPLES, 3), WANDA)
    result = reconstructed(model, 3, steps=1)
    for name, row in result.linears.items():
        assert row["block_error"] == {"pruned": 1.0, "reconstructed": 1.0}
        assert torch.equal(plain.get_submodule(name).weight, model.get_submodule(name).weight)


def test_padding_counts_for_nothing() -> None:
    """The error of a padded batch is the mean over the tokens of its samples, each by itself."""
    samples, pruned = toys("ppp"), make_llava()
    run(pruned, calibration(samples, 3), WANDA)
    method = dataclasses.replace(WANDA, reconstruct=Reconstruct(steps=1))
    result = run(make_llava(), calibration(samples, 3), method)
    layers = [model.get_decoder().layers[0] for model in (make_llava(), pruned)]
    with torch.no_grad():
        off = [whole(layers[0], *call) - whole(layers[1], *call) for call in inputs_of(make_llava(), samples)]
    wanted = float(torch.cat([one[0] for one in off]).square().mean())
    assert len({one.shape for one in off}) > 1, "nothing would be padded"
    found = result.linears[f"{model_path(pruned)}.0.{LINEARS[0]}"]["block_error"]["pruned"]
    assert found == pytest.approx(wanted, rel=1e-4)


def test_shares_of_tokens_by_hand() -> None:
    modality = torch.tensor([0, 1, 1, 1])
    assert token_shares(modality, "tokens").tolist() == [0.25] * 4
    assert token_shares(modality, "modalities").tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])
