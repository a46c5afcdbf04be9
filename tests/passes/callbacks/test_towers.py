"""Towers and projector against a literal implementation: one picture at a time, whole matrices, plain loops."""

import copy

import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig, LlavaNextForConditionalGeneration

from tamp_lightning import Method, prune
from tamp_lightning.ops.obs import sparsegpt
from tamp_lightning.passes.callbacks.dense import DenseTwin

from ...conftest import IMAGE_ID, TAMP, WANDA, as_batch, toys
from ...stream.conftest import make_llama, make_llava, text_config
from ..test_literal import keep_rows, prune_block

OPTIONS = {"progress": False, "accelerator": "cpu"}
PROJECTOR = "model.multi_modal_projector.linear_1"


def batches(samples, size=2):
    return [as_batch(samples[k : k + size]) for k in range(0, len(samples), size)]


def tower_linears(model):
    """All linears that are no head and in no decoder block."""
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    return [name for name in names if name != "lm_head" and "language_model" not in name]


@torch.no_grad()
def read_by_towers(model, samples):
    """Name of a linear -> everything it reads [tokens, c] in float64, one sample after the other."""
    model, seen = copy.deepcopy(model), {}
    for name in tower_linears(model):
        model.get_submodule(name).register_forward_hook(
            lambda _m, args, _o, name=name: seen.setdefault(name, []).append(args[0].flatten(0, -2).double().numpy())
        )
    for sample in samples:
        if sample.pixels is not None:
            model(**as_batch([sample]), use_cache=False)
    return {name: np.concatenate(parts) for name, parts in seen.items()}


def literal_mask(solver, weight, inputs, kept):
    w = np.abs(weight.double().numpy())
    norm = np.sqrt((inputs**2).sum(0))
    scores = {
        "magnitude": w,
        "wanda": w * norm,
        "ria": (w / w.sum(1, keepdims=True) + w / w.sum(0, keepdims=True)) * norm**0.5,
    }
    return keep_rows(scores[solver], kept)


@pytest.mark.parametrize("solver", ["magnitude", "wanda", "ria"])
def test_towers_lose_what_the_literal_algorithm_takes(solver):
    samples, model, dense = toys("ptpp"), make_llava(), make_llava()
    method = Method(solver=solver, tokens="all", allocation="uniform")
    result = prune(model, batches(samples), method=method, towers={"sparsity": 0.3}, **OPTIONS)
    read = read_by_towers(dense, samples)
    assert list(result.towers) == tower_linears(dense)
    for name, row in result.towers.items():
        weight = dense.get_submodule(name).weight.detach()
        assert weight.shape[0] >= 2
        mask = literal_mask(solver, weight, read[name], row["kept"])
        np.testing.assert_array_equal(result.mask(name).numpy(), mask, err_msg=name)
        assert torch.equal(model.get_submodule(name).weight, weight * torch.from_numpy(mask))
        assert row["tokens_per_sample"] == len(read[name]) / len(samples)


def test_the_budget_is_met_to_the_weight_and_counted_apart():
    samples, model = toys("pp"), make_llava()
    result = prune(model, batches(samples), method=WANDA, towers={"sparsity": 0.37}, **OPTIONS)
    kept, size = (sum(row[key] for row in result.towers.values()) for key in ("kept", "size"))
    assert kept == round(size * (1 - 0.37))
    assert result.towers_sparsity == 1 - kept / size
    assert result.sparsity == 0.5
    assert not result.plan.keys() & result.towers.keys()
    zeros = sum(int((model.get_submodule(name).weight == 0).sum()) for name in result.towers)
    assert zeros == size - kept
    for row in result.towers.values():
        assert row["kept"] == pytest.approx(row["size"] * 0.63, abs=1)


def test_blocks_see_what_pruned_towers_produce():
    samples = toys("ptp")
    result = prune(make_llava(), batches(samples), method=WANDA, towers={"sparsity": 0.5}, **OPTIONS)
    plan = {name: row["kept"] for name, row in result.plan.items()}
    model = make_llava()
    for name in result.towers:
        model.get_submodule(name).weight.data.mul_(result.mask(name))
    differs = False
    for k in range(3):
        on_dense = prune_block(make_llava(), 0, samples, plan, lambda *_: slice(None)) if k == 0 else {}
        for name, mask in prune_block(model, k, samples, plan, lambda *_: slice(None)).items():
            np.testing.assert_array_equal(result.mask(name).numpy(), mask, err_msg=name)
            differs |= name in on_dense and bool((on_dense[name] != mask).any())
    assert differs  # so that this test can tell pruned from dense towers


def test_diversity_is_measured_on_dense_towers():
    samples = toys("ptp")
    with_, without = (
        prune(make_llava(), batches(samples), method=TAMP, towers=towers, **OPTIONS)
        for towers in ({"sparsity": 0.5}, None)
    )
    assert [row["diversity"] for row in with_.plan.values()] == [row["diversity"] for row in without.plan.values()]
    assert {n: row["kept"] for n, row in with_.plan.items()} == {n: row["kept"] for n, row in without.plan.items()}
    assert {row["sha256"] for row in with_.plan.values()} != {row["sha256"] for row in without.plan.values()}
    assert without.towers == {}
    assert without.towers_sparsity is None


@pytest.mark.parametrize("pattern", ["matrix", "2:4"])
def test_a_solver_that_moves_weights_gets_the_towers_second_moments(pattern):
    samples, model, dense = toys("ppt"), make_llava(), make_llava()
    method = Method(0.5, tokens="all", allocation="uniform", solver="sparsegpt", pattern=pattern)
    result = prune(model, batches(samples), method=method, towers={"sparsity": 0.5}, **OPTIONS)
    read = read_by_towers(dense, samples)
    for name, row in result.towers.items():
        choice = {"pattern": (2, 4)} if pattern == "2:4" else {"kept": row["kept"], "by_row": False}
        hessian = torch.from_numpy(read[name].T @ read[name]).float()
        weight, mask = sparsegpt(dense.get_submodule(name).weight.detach(), hessian, **choice)
        assert torch.equal(result.mask(name), mask), name
        torch.testing.assert_close(model.get_submodule(name).weight.detach(), weight, rtol=1e-3, atol=1e-4)
    if pattern == "2:4":
        groups = result.mask(PROJECTOR).view(-1, 4).sum(1)
        assert set(groups.tolist()) == {2}


def test_towers_alone_with_a_dense_decoder():
    model, dense = make_llava(), make_llava()
    method = Method(0.0, tokens="all", allocation="uniform")
    result = prune(model, batches(toys("pt")), method=method, towers={"sparsity": 0.2}, **OPTIONS)
    assert result.sparsity == 0
    assert result.towers_sparsity == pytest.approx(0.2, abs=1e-3)
    for name, value in model.state_dict().items():
        pruned = name.removesuffix(".weight") in result.towers
        assert torch.equal(value, dense.state_dict()[name]) != pruned, name


def test_patterns_choose_linears():
    samples = batches(toys("p"))
    towers = {"sparsity": 0.5, "include": [r"layers\.\d\.mlp", "projector"], "exclude": ["fc2"]}
    result = prune(make_llava(), samples, method=WANDA, towers=towers, **OPTIONS)
    assert {name.split(".", 2)[2] for name in result.towers} == {
        "encoder.layers.0.mlp.fc1", "encoder.layers.1.mlp.fc1", "linear_1", "linear_2",
    }  # fmt: skip


def many_crops():
    """A model whose pictures come in two or five crops of four patches."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4,
        projection_dim=16,
    )  # fmt: skip
    config = LlavaNextConfig(
        vision_config=vision, text_config=text_config(LlamaConfig), image_token_index=IMAGE_ID,
        image_grid_pinpoints=[[8, 8], [16, 16]],
    )  # fmt: skip
    return LlavaNextForConditionalGeneration(config).eval()


def picture(crops, side, tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.cat([torch.tensor([5, 6]), torch.full((tokens,), IMAGE_ID), torch.tensor([7, 8, 9])])
    sizes = torch.tensor([[side, side]])
    return {"input_ids": ids[None], "pixel_values": torch.randn(1, crops, 3, 8, 8, generator=generator),
            "image_sizes": sizes, "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}  # fmt: skip


def padded_pair(first, second, fill):
    """One batch of a short and a long sample, padding crops holding `fill`."""
    tokens = second["input_ids"].shape[1] - first["input_ids"].shape[1]
    crops = second["pixel_values"].shape[1] - first["pixel_values"].shape[1]
    wide = {
        "input_ids": torch.nn.functional.pad(first["input_ids"], (0, tokens)),
        "attention_mask": torch.nn.functional.pad(first["attention_mask"], (0, tokens)),
        "pixel_values": torch.nn.functional.pad(first["pixel_values"], (0, 0) * 3 + (0, crops), value=fill),
        "image_sizes": first["image_sizes"],
    }
    return {key: torch.cat([wide[key], second[key]]) for key in wide}


@pytest.mark.parametrize("fill", [0.0, 1e6, float("nan")])
def test_padding_crops_do_not_count(fill):
    # a base tile and a grid of 1 or 2 x 2 tiles, a newline after every row of patches
    first, second = picture(2, 8, 4 + 4 + 2, 1), picture(5, 16, 4 + 16 + 4, 2)
    alone = prune(many_crops(), [first, second], method=WANDA, towers={"sparsity": 0.5}, **OPTIONS)
    padded = [padded_pair(first, second, fill)]
    together = prune(many_crops(), padded, method=WANDA, towers={"sparsity": 0.5}, **OPTIONS)
    assert alone.towers == together.towers
    assert alone.towers[PROJECTOR]["tokens_per_sample"] == 7 * 4 / 2


def test_the_dense_twin_starts_from_dense_towers(monkeypatch):
    samples, seen = toys("pp"), {}
    tokens = DenseTwin.tokens

    def spy(self, pl_module, batch_idx):
        found = tokens(self, pl_module, batch_idx)
        if pl_module.index == 0:
            seen[batch_idx] = (next(iter(found.values())).inputs, pl_module.current.hidden)
        return found

    monkeypatch.setattr(DenseTwin, "tokens", spy)
    method = {"tokens": "all", "allocation": "uniform", "correction": {"tau": 0.5}}
    prune(make_llava(), batches(samples, 1), method=method, towers={"sparsity": 0.5}, **OPTIONS)
    block = make_llava().model.language_model.layers[0]
    for number, sample in enumerate(samples):
        own = []
        model = make_llava()
        model.model.language_model.layers[0].register_forward_pre_hook(lambda _m, args, own=own: own.append(args[0]))
        with torch.no_grad():
            model(**as_batch([sample]), use_cache=False)
            assert torch.equal(seen[number][0], block.input_layernorm(own[0]))
        assert not torch.equal(seen[number][1], own[0])


REFUSED = [
    ({"sparsity": 1.0}, r"towers\.sparsity is 1\.0"),
    ({"sparsity": -0.1}, r"towers\.sparsity is -0\.1"),
    ({"include": ["mlp"]}, r"towers\.include is given, but towers\.sparsity is 0"),
    ({"sparsty": 0.3}, r"towers: unknown key sparsty .did you mean 'sparsity'"),
    (
        {"sparsity": 0.3, "include": ["language_model"]},
        r"towers\.include pattern 'language_model' finds no linear of t",
    ),
    ({"sparsity": 0.3, "exclude": ["lm_head"]}, r"towers\.exclude pattern 'lm_head' finds no linear of towers"),
    ({"sparsity": 0.3, "exclude": ["."]}, "no linear of towers and projector left to prune"),
]


@pytest.mark.parametrize(("towers", "message"), REFUSED)
def test_bad_input_is_refused_before_anything_changes(towers, message):
    model = make_llava()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=message) as error:
        prune(model, batches(toys("p")), method=WANDA, towers=towers, **OPTIONS)
    assert "\n" not in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_weight_that_two_linears_share_is_refused():
    model = make_llava()
    layers = model.model.vision_tower.encoder.layers
    layers[1].mlp.fc1.weight = layers[0].mlp.fc1.weight
    with pytest.raises(ValueError, match=r"layers\.[01]\.mlp\.fc1\.weight is shared with .* exclude it"):
        prune(model, batches(toys("p")), method=WANDA, towers={"sparsity": 0.3}, **OPTIONS)


def test_a_text_model_has_no_towers():
    with pytest.raises(ValueError, match="LlamaForCausalLM has no linear outside of its decoder"):
        prune(make_llama(), batches(toys("t")), method=WANDA, towers={"sparsity": 0.3}, **OPTIONS)


def test_calibration_without_media_cannot_prune_towers():
    model = make_llava()
    with pytest.raises(ValueError, match=r"towers\.sparsity asks for linears that no calibration sample reaches"):
        prune(model, batches(toys("tt")), method=WANDA, towers={"sparsity": 0.3}, **OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), make_llava().parameters(), strict=True))


def test_a_pattern_that_does_not_fit_the_towers_is_refused():
    method = Method(0.5, tokens="all", allocation="uniform", pattern="2:4")
    with pytest.raises(ValueError, match=r"towers\.sparsity is 0\.3; pattern '2:4' removes 0\.5"):
        prune(make_llava(), batches(toys("p")), method=method, towers={"sparsity": 0.3}, **OPTIONS)
    method = Method(0.75, tokens="all", allocation="uniform", pattern="4:16")
    with pytest.raises(ValueError, match=r"pattern '4:16' does not fit model\.vision_tower.*fc2: 16 .* 24"):
        prune(make_llava(), batches(toys("p")), method=method, towers={"sparsity": 0.75}, **OPTIONS)


def test_what_is_not_finite_is_named():
    model = make_llava()
    with torch.no_grad():
        model.get_submodule("model.vision_tower.encoder.layers.1.mlp.fc1").weight.fill_(3e38)
    with pytest.raises(
        ValueError, match=r"layers\.1\.mlp\.fc2 has NaN or infinite inputs in calibration samples 0 to 1"
    ):
        prune(model, batches(toys("pp")), method=WANDA, towers={"sparsity": 0.3}, **OPTIONS)


def test_a_linear_that_reads_text_is_no_tower():
    model = make_llava()
    gate = torch.nn.Linear(32, 32)
    model.model.text_gate = gate
    model.get_input_embeddings().register_forward_hook(lambda _m, _a, output: gate(output))
    with pytest.raises(ValueError, match=r"model\.text_gate runs on samples without media.*towers\.exclude"):
        prune(model, batches(toys("tp"), 1), method=WANDA, towers={"sparsity": 0.3}, **OPTIONS)
