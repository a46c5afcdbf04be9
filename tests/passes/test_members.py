"""Every member of every choice through the real engine: budget, masks, repeatability, both streams."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlavaNextForConditionalGeneration

from tamp_lightning.methods.allocation import Das, Ecoflap
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.options import Correction, Reconstruct
from tamp_lightning.methods.ratios import Dlp, Owl
from tamp_lightning.methods.selection import Selection
from tamp_lightning.methods.tilt import Diversity
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.stream import DiskStream, MemoryStream

from ..conftest import calibration, hashes, run, toys
from ..stream.conftest import logits, make_llava, save

PLAIN = {"tokens": "all", "allocation": "uniform"}
TOKENS = {
    name: Method(tokens=name, allocation="uniform") for name in ("all", "amia", "text_only", "atv", "modality_mix")
}
ALLOCATIONS = {
    name: Method(tokens="all", allocation=name, ecoflap=Ecoflap(samples=2))
    for name in ("uniform", "constant", "das", "owl", "dlp", "alpha", "ecoflap", "depth_ramp")
} | {"das_sized": Method(tokens="all", das=Das(size_weighted=True))}
SOLVERS = {name: Method(solver=name, **PLAIN) for name in ("magnitude", "wanda", "ria", "sparsegpt", "admm")}
PATTERNS = {
    f"{solver} {pattern}": Method(1 / 3 if pattern == "2:3" else 0.5, solver=solver, pattern=pattern, **PLAIN)
    for solver in ("magnitude", "wanda", "sparsegpt", "admm")
    for pattern in ("matrix", "2:4", "4:8")
}
OPTIONS = {
    "corrected wanda": Method(correction=Correction(tau=1.0), **PLAIN),
    "corrected sparsegpt": Method(solver="sparsegpt", correction=Correction(tau=0.5), **PLAIN),
    "tried widths": Method(
        allocation="diversity",
        solver="sparsegpt",
        diversity=Diversity(widths=(0.0, 0.1, -0.1), held_out=0.5),
        correction=Correction(tau=0.5),
    ),
    "reconstructed wanda": Method(reconstruct=Reconstruct(steps=12, lr=1e-3), **PLAIN),
    "corrected atv admm": Method(
        tokens="atv", allocation="owl", solver="admm", reconstruct=Reconstruct(steps=2), correction=Correction(tau=0.5)
    ),
}
CROSSED = {
    f"{tokens} {solver}": Method(0.6, tokens=tokens, solver=solver, pattern="matrix", allocation="constant")
    for tokens in ("amia", "text_only", "atv", "modality_mix")
    for solver in ("sparsegpt", "admm", "ria")
}
EVERY = TOKENS | ALLOCATIONS | SOLVERS | PATTERNS | OPTIONS | CROSSED
MOVING = ["sparsegpt", "admm", "corrected wanda", "reconstructed wanda", "corrected atv admm", "modality_mix sparsegpt"]


def unpack(pruned, name):
    shape = pruned.linears[name]["shape"]
    return np.unpackbits(pruned.masks[name].numpy())[: shape[0] * shape[1]].astype(bool).reshape(shape)


def check_pattern(mask, pattern, kept):
    assert mask.sum() == kept
    if pattern == "row":
        per_row = mask.sum(1)
        assert per_row.max() - per_row.min() <= 1
    elif pattern != "matrix":
        n, m = map(int, pattern.split(":"))
        assert set(mask.reshape(len(mask), -1, m).sum(2).flatten().tolist()) == {n}


@pytest.mark.parametrize("name", EVERY)
def test_the_plan_is_met_to_the_weight_and_the_masks_fit_the_pattern(name):
    method, models = EVERY[name], [make_llava(), make_llava()]
    first, second = (run(model, calibration(toys("ptptp"), 2), method) for model in models)
    assert hashes(first) == hashes(second)
    size = sum(row["size"] for row in first.linears.values())
    assert sum(row["kept"] for row in first.linears.values()) == round(size * (1 - method.sparsity))
    rule = method.allocation_rule
    for full, row in first.linears.items():
        mask = unpack(first, full)
        check_pattern(mask, method.pattern, row["kept"])
        weights = [model.get_submodule(full).weight for model in models]
        assert not weights[0].detach().numpy()[~mask].any()
        assert torch.equal(*weights)
        limit = method.sparsity + getattr(rule, "cap_margin", 1.0)
        assert 1 - row["kept"] / row["size"] <= limit + 1 / row["size"]


@pytest.mark.parametrize("name", MOVING)
def test_moved_weights_are_the_same_in_memory_and_on_disk_and_the_output_loads(name, tmp_path):
    method, samples, model = EVERY[name], toys("tptp"), make_llava()
    here = run(model, calibration(samples, 2), method)
    stream = DiskStream(save(make_llava(), tmp_path / "source", sharded=True), tmp_path / "out")
    there = prune_stream(stream, calibration(samples, 2), method, progress=False, accelerator="cpu")
    assert hashes(here) == hashes(there)
    loaded = LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    for full in here.linears:
        assert torch.equal(loaded.get_submodule(full).weight, model.get_submodule(full).weight)
    assert torch.equal(logits(loaded), logits(model))
    moved = [
        (model.get_submodule(f).weight - make_llava().get_submodule(f).weight)[unpack(here, f)] for f in here.linears
    ]
    # correction alone moves nothing in the first block, which sees what the dense model sees
    has_moved = [bool(m.any()) for m in moved[7 * name.startswith("corrected") :]]
    # and reconstruction is undone in a block that comes out worse on the batches held out
    assert any(has_moved) if name == "reconstructed wanda" else all(has_moved)


@pytest.mark.parametrize("name", ["atv", "modality_mix", "owl", "alpha", "ecoflap", "wanda 2:4"])
def test_masks_are_the_same_in_memory_and_on_disk(name, tmp_path):
    samples = toys("tptp")
    here = run(make_llava(), calibration(samples, 2), EVERY[name])
    stream = DiskStream(save(make_llava(), tmp_path / "source", sharded=True), tmp_path / "out")
    there = prune_stream(stream, calibration(samples, 2), EVERY[name], progress=False, accelerator="cpu")
    assert here.linears == there.linears


@pytest.mark.parametrize("name", ["atv", "modality_mix", "owl", "dlp"])
def test_order_and_batch_size_change_no_mask(name):
    samples = toys("tptptp")
    results = [
        hashes(run(make_llava(), calibration(samples, size, order), EVERY[name]))
        for size, order in ((1, None), (3, None), (2, [5, 3, 1, 0, 2, 4]))
    ]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(("rule", "section"), [("owl", Owl(cap_margin=0.02)), ("dlp", Dlp(floor=0.48))])
def test_cap_and_floor_hold(rule, section):
    pruned = run(make_llava(), calibration(toys("tp"), 2), Method(tokens="all", allocation=rule, **{rule: section}))
    shares = [1 - row["kept"] / row["size"] for row in pruned.linears.values()]
    assert sum(row["kept"] for row in pruned.linears.values()) == sum(r["size"] for r in pruned.linears.values()) // 2
    assert max(shares) <= 0.5 + section.cap_margin + 1e-3
    assert min(shares) >= section.floor - 1e-3
    assert max(shares) > min(shares)


@pytest.mark.parametrize(
    "name", ["corrected atv admm", "modality_mix", "das", "owl", "dlp", "alpha", "ecoflap", "depth_ramp"]
)
def test_a_block_without_prunable_linears_is_passed_over(name):
    model, dense = make_llava(), make_llava()
    stream = MemoryStream(model, Selection(exclude=[r"layers\.1\."]))
    options = {"progress": False, "accelerator": "cpu"}
    pruned = prune_stream(stream, calibration(toys("ptpp"), 2), EVERY[name], **options)
    assert len(pruned.linears) == 14
    assert pruned.sparsity == pytest.approx(0.5, abs=1e-4)
    blocks = [m.get_decoder().layers[1].state_dict().values() for m in (model, dense)]
    assert all(map(torch.equal, *blocks))


@pytest.mark.parametrize("sparsity", [0.0, 0.93])
@pytest.mark.parametrize("name", [*ALLOCATIONS, "sparsegpt", "admm", "magnitude"])
def test_next_to_nothing_and_next_to_everything(name, sparsity):
    model, dense, method = make_llava(), make_llava(), replace(EVERY[name], sparsity=sparsity)
    pruned = run(model, calibration(toys("pt"), 2), method)
    assert pruned.sparsity == pytest.approx(sparsity, abs=1e-4)
    if sparsity == 0:
        assert all(map(torch.equal, model.state_dict().values(), dense.state_dict().values()))


def test_ties_and_own_zeros_do_no_harm():
    """Weights of 16 levels, as dequantised checkpoints have, and whole columns that are zero already."""
    for name in ("magnitude", "wanda 2:4", "sparsegpt matrix", "admm", "ria", "alpha", "das_sized"):
        model, method = make_llava(), EVERY[name]
        with torch.no_grad():
            for block in model.get_decoder().layers:
                for full in ("self_attn.q_proj", "mlp.down_proj"):
                    weight = block.get_submodule(full).weight
                    weight.copy_((weight / weight.abs().max() * 8).round() / 8)
                    weight[:, 3:9] = 0
        pruned = run(model, calibration(toys("pt"), 2), method)
        for full, row in pruned.linears.items():
            check_pattern(unpack(pruned, full), method.pattern, row["kept"])
