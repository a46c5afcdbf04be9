"""Reconstruction of pruned blocks: against plain loops over whole model blocks, and what it must leave alone."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.options import Correction, Reconstruct
from tamp_lightning.passes.reconstruction import parts_of, reach, token_shares
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.stream import MemoryStream

from ..conftest import WANDA, as_batch, calibration, run, toys
from ..stream.conftest import make_llama, make_llava
from ..zoo.newer import NEWER
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
        optimizer = torch.optim.AdamW([w.requires_grad_() for w in weights], lr, (0.9, 0.95))

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


class Block(nn.Module):
    """A decoder block's children, called in an order of its own."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.mlp, self.attn = nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm, self.second = nn.LayerNorm(4), nn.LayerNorm(4)
        self.order = order.split()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for name in self.order:
            hidden = hidden + self.get_submodule(name)(hidden)
        return hidden


@dataclasses.dataclass(frozen=True)
class Named:
    name: str


@pytest.mark.parametrize(
    ("order", "cut"),
    [
        ("norm attn second mlp", "second"),
        ("attn norm mlp second", "norm"),  # norms after, as in OLMo 2
        ("norm attn mlp", None),  # both read the same norm
        ("norm mlp attn", None),
        ("norm attn drop second mlp", "second"),
    ],
)
def test_where_a_block_is_cut(order: str, cut: str | None) -> None:
    block, linears = Block(order), [Named("attn.o"), Named("mlp.up")]
    parts = parts_of(block, linears, order.split())
    assert [len(part.linears) for part in parts] == ([1, 1] if cut else [2])
    assert parts[0].cut is (block.get_submodule(cut) if cut else None)
    assert parts[-1].cut is None


def test_an_mlp_of_several_children_is_not_cut() -> None:
    """OPT's fc1 and fc2 stand in the block itself, with an activation between them."""
    block = nn.ModuleDict({name: nn.Identity() for name in ("norm", "attn", "second", "fc1", "act", "fc2")})
    parts = parts_of(block, [Named("attn.o"), Named("fc1"), Named("fc2")], list(block))
    assert [[linear.name for linear in part.linears] for part in parts] == [["attn.o"], ["fc1", "fc2"]]
    assert parts[0].cut is block["second"]
    [part] = parts_of(block, [Named("fc1"), Named("fc2")], list(block))
    assert part.cut is None


def test_a_cut_block_whose_norm_reads_tokens_in_one_row() -> None:
    family = NEWER["blip2"]  # whose language model is OPT
    result = prune_stream(
        MemoryStream(family.make()),
        CalibrationData.from_batches(family.batches()),
        dataclasses.replace(WANDA, reconstruct=Reconstruct(steps=8, lr=1e-3)),
        progress=False,
        accelerator="cpu",
    )
    assert all(row["block_error"]["reconstructed"] < row["block_error"]["pruned"] for row in result.linears.values())


def test_where_the_mlp_stands_beside_attention_with_a_norm_of_its_own_both_are_trained() -> None:
    config = GPTNeoXConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, pad_token_id=0
    )
    models = []
    for steps in (0, 8):
        torch.manual_seed(0)
        models.append(GPTNeoXForCausalLM(config).eval())
        method = dataclasses.replace(WANDA, reconstruct=Reconstruct(steps=steps, lr=1e-3))
        run(models[-1], calibration(toys("ttttt"), 1), method)
    plain, model = (dict(model.named_parameters()) for model in models)
    moved = {name.split(".")[3] for name in plain if not torch.equal(plain[name], model[name])}
    assert moved == {"attention", "mlp"}


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


def test_a_cut_block_computes_nothing_after_the_cut() -> None:
    block, hidden = Block("norm attn second mlp"), torch.randn(1, 3, 4)
    block.mlp.forward = None
    batch = dataclasses.make_dataclass("Batch", ["hidden", "kwargs"])(hidden, {})
    first = hidden + block.norm(hidden)
    assert torch.equal(reach(block, batch, block.second), first + block.attn(first))
    assert not block.second._forward_pre_hooks


def test_shares_of_tokens_by_hand() -> None:
    modality = torch.tensor([0, 1, 1, 1])
    assert token_shares(modality, "tokens").tolist() == [0.25] * 4
    assert token_shares(modality, "modalities").tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])
