"""Reconstruction of pruned blocks: against plain loops over whole model blocks, and what it must leave alone."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForImageTextToText

from tamp_lightning.methods.method import Method
from tamp_lightning.methods.options import Correction, Reconstruct
from tamp_lightning.passes.reconstruction import rate, token_shares
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.stream import DiskStream

from ..conftest import WANDA, as_batch, calibration, run, toys
from ..stream.conftest import IMAGE_ID, make_llama, make_llava, save
from .test_literal import LINEARS, model_path, unpack

HALVES = (["input_layernorm", "self_attn"], ["post_attention_layernorm", "mlp"])
"""Attention's children of a Llama block, and the MLP's."""
SAMPLES = toys("ptptptptp")
"""Nine batches of one sample each: the eighth is held out."""
NORMS = Reconstruct(steps=16, lr=1e-3, norms=True)


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


@pytest.mark.parametrize(("make", "norms"), [(make_llama, True), (make_llava, False)])
def test_the_first_block_is_trained_as_a_plain_loop_would(make, norms) -> None:
    """AdamW under a mask, attention towards what the dense attention gives, then the MLP towards the dense block."""
    samples = SAMPLES if make is make_llava else toys("ttttttttt")
    steps, lr = 16, 1e-3
    pruned, model, dense = make(), make(), make()
    run(pruned, calibration(samples, 1), WANDA)
    method = dataclasses.replace(WANDA, reconstruct=Reconstruct(steps=steps, lr=lr, norms=norms))
    result = run(model, calibration(samples, 1), method)

    layer, before = dense.get_decoder().layers[0], make().get_decoder().layers[0]
    before.load_state_dict(pruned.get_decoder().layers[0].state_dict())
    calls = inputs_of(make(), samples)
    learn, judge = [calls[k] for k in (0, 1, 2, 3, 4, 5, 6, 8)], [calls[7]]
    trained = {name: value for name, value in before.named_parameters() if norms or "norm" not in name}
    for children, half in zip(HALVES, (attention_half, whole), strict=True):
        weights = [value for name, value in trained.items() if name.split(".")[0] in children]
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
            optimizer.param_groups[0]["lr"] = lr * [0.5, 1.0, *(k / 15 for k in range(14, 0, -1))][step]
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

    for name, got in model.get_decoder().layers[0].named_parameters():
        torch.testing.assert_close(got, before.get_parameter(name), rtol=1e-3, atol=1e-5, msg=name)
    assert norms is not torch.equal(before.input_layernorm.weight, layer.input_layernorm.weight)
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


def test_on_disk_norms_are_written_in_the_dtype_of_the_checkpoint(tmp_path) -> None:
    source = save(make_llava().to(torch.bfloat16), tmp_path / "source", sharded=True)
    model, method = AutoModelForImageTextToText.from_pretrained(source), dataclasses.replace(WANDA, reconstruct=NORMS)
    run(model.float(), calibration(SAMPLES, 1), method)
    stream = DiskStream(source, tmp_path / "out", dtype=torch.float32)
    prune_stream(stream, calibration(SAMPLES, 1), method, progress=False, accelerator="cpu")
    written = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    before = AutoModelForImageTextToText.from_pretrained(source)
    moved = {name for name, value in written.named_parameters() if not torch.equal(value, before.get_parameter(name))}
    first = f"{model_path(model)}.0."
    own = [name for name, _ in model.get_submodule(first[:-1]).named_parameters()]
    assert {first + name for name in own} <= moved
    for name in own:  # rounding to what is written moves the inputs of later blocks
        assert written.get_parameter(first + name).dtype == torch.bfloat16
        assert torch.equal(written.get_parameter(first + name), model.get_parameter(first + name).bfloat16()), name
    assert all(".layers." in name for name in moved)


def test_steps_that_do_not_help_change_nothing() -> None:
    plain, wild = make_llava(), make_llava()
    run(plain, calibration(SAMPLES, 1), WANDA)
    result = reconstructed(wild, steps=2, lr=50.0)
    for name, row in result.linears.items():
        assert row["block_error"]["reconstructed"] == row["block_error"]["pruned"]
        assert torch.equal(plain.get_submodule(name).weight, wild.get_submodule(name).weight)


@pytest.mark.parametrize(
    "options",
    [
        {"correction": Correction(tau=0.5)},
        {"solver": "magnitude", "reconstruct": Reconstruct(steps=24, lr=1e-3, inputs="dense", norms=True)},
    ],
    ids=["corrected", "magnitude"],
)
def test_towards_the_dense_model_after_any_solver(options) -> None:
    method = Method(**{"tokens": "all", "allocation": "uniform", "reconstruct": Reconstruct(24, 1e-3)} | options)
    result = run(make_llava(), calibration(SAMPLES, 1), method)
    assert all(row["block_error"]["reconstructed"] < row["block_error"]["pruned"] for row in result.linears.values())


@pytest.mark.parametrize("options", [{}, {"target": "model"}, {"inputs": "dense"}], ids=["block", "model", "dense"])
def test_what_blocks_read_and_what_they_aim_at(options) -> None:
    """The error of the second block, before a step that moves nothing: pruned or dense inputs, pruned or dense ones
    for the dense block."""
    pruned, dense = make_llava(), make_llava()
    run(pruned, calibration(SAMPLES, 1), WANDA)
    result = reconstructed(make_llava(), steps=1, lr=1e-12, **options)
    layers = [model.get_decoder().layers for model in (pruned, dense)]
    hidden, kwargs = inputs_of(make_llava(), [SAMPLES[7]])[0]
    with torch.no_grad():
        after_pruned, after_dense = (whole(blocks[0], hidden, kwargs) for blocks in layers)
        inputs = after_dense if options.get("inputs") else after_pruned
        wanted = whole(layers[1][1], after_dense if options else after_pruned, kwargs)
        error = F.mse_loss(whole(layers[0][1], inputs, kwargs), wanted)
    found = result.linears[f"{model_path(pruned)}.1.{LINEARS[0]}"]["block_error"]["pruned"]
    assert found == pytest.approx(float(error), rel=1e-3)


def test_a_block_that_came_out_worse_is_as_the_solver_left_it(monkeypatch) -> None:
    def spoil(pl_module, block, masks, dense, lesson, options):
        for name in dense:
            block.get_parameter(name).data.zero_()
        return 1.0, 2.0

    monkeypatch.setattr("tamp_lightning.passes.callbacks.pruning.reconstruct", spoil)
    plain, model = make_llava(), make_llava()
    run(plain, calibration(SAMPLES, 3), WANDA)
    result = reconstructed(model, 3, steps=1, norms=True)
    for row in result.linears.values():
        assert row["block_error"] == {"pruned": 1.0, "reconstructed": 1.0}
    assert all(map(torch.equal, plain.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize("weigh", ["tokens", "rule"])
def test_padding_and_what_the_token_rule_leaves_out_count_for_nothing(weigh) -> None:
    """The error of a padded batch is the mean over the tokens of its samples, each by itself, or over their text."""
    samples, pruned = toys("ppp"), make_llava()
    rule = dataclasses.replace(WANDA, tokens="all" if weigh == "tokens" else "text_only")
    run(pruned, calibration(samples, 3), rule)
    method = dataclasses.replace(rule, reconstruct=Reconstruct(steps=1, weigh=weigh))
    result = run(make_llava(), calibration(samples, 3), method)
    layers = [model.get_decoder().layers[0] for model in (make_llava(), pruned)]
    with torch.no_grad():
        off = [whole(layers[0], *call) - whole(layers[1], *call) for call in inputs_of(make_llava(), samples)]
    text = [(sample.ids != IMAGE_ID) | (weigh == "tokens") for sample in samples]
    wanted = float(torch.cat([one[0][own] for one, own in zip(off, text, strict=True)]).square().mean())
    assert len({one.shape for one in off}) > 1, "nothing would be padded"
    found = result.linears[f"{model_path(pruned)}.0.{LINEARS[0]}"]["block_error"]["pruned"]
    assert found == pytest.approx(wanted, rel=1e-4)


def test_shares_of_tokens_by_hand() -> None:
    modality = torch.tensor([0, 1, 1, 1])
    assert token_shares(modality, "tokens").tolist() == [0.25] * 4
    assert token_shares(modality, "modalities").tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])
    assert token_shares(modality, "rule", torch.tensor([1, 0, 0.5, 0.5])).tolist() == [0.5, 0, 0.25, 0.25]
    assert token_shares(modality, "rule", torch.zeros(4)).tolist() == [0] * 4


def test_the_rate_rises_from_above_zero_and_never_ends_at_zero() -> None:
    assert [rate(step, 20) for step in (0, 1, 2, 19)] == pytest.approx([1 / 2, 1, 18 / 19, 1 / 19])
    assert [rate(step, 3) for step in range(3)] == pytest.approx([1, 2 / 3, 1 / 3])
