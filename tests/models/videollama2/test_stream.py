"""The pruning engine on the tiny checkpoint in the official layout."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tamp_lightning import prune
from tamp_lightning.stream import DiskStream

from .conftest import golden_batch


@torch.no_grad()
@pytest.mark.parametrize("case", ["av", "video", "audio"])
def test_the_stream_computes_what_the_loaded_model_does(golden_folder: Path, model, io, tmp_path: Path, case):
    stream = DiskStream(golden_folder, tmp_path / "out")
    for index in range(len(stream.facts.linears)):
        stream.load(index)
    batch = golden_batch(model, io, case)
    assert torch.equal(stream.model(**batch, use_cache=False).logits, model(**batch, use_cache=False).logits)


@pytest.mark.parametrize("method", [{}, {"tokens": "all", "allocation": "uniform"}])
def test_pruned_and_saved_in_the_official_layout(golden_folder: Path, processor, tmp_path: Path, method):
    noise = np.random.default_rng(0)
    videos = [
        {"video": noise.integers(0, 256, (4, 20, 20, 3), dtype=np.uint8), "audio": noise.uniform(-1, 1, 48000)}
        for _ in range(2)
    ]
    batches = [processor(["<video>ab", "cdefg"], videos=videos[:1]), processor("hi<video>", videos=videos[1])]
    result = prune(golden_folder, batches, method=method, out=tmp_path / "run", progress=False, accelerator="cpu")
    assert result.sparsity == pytest.approx(0.5, abs=1e-3)
    before, after = (load_file(f / "model.safetensors") for f in (golden_folder, result.checkpoint))
    assert set(before) == set(after)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert len(changed) == 14
    assert all(key.startswith("model.layers.") for key in changed)
    assert all(torch.equal(after[key][after[key] != 0], before[key][after[key] != 0]) for key in changed)
    _, info = AutoModelForCausalLM.from_pretrained(result.checkpoint, output_loading_info=True)
    assert not any(info.values())


def test_towers_and_connectors_pruned_and_saved_in_the_official_layout(golden_folder: Path, processor, tmp_path: Path):
    noise = np.random.default_rng(0)
    videos = [
        {"video": noise.integers(0, 256, (4, 20, 20, 3), dtype=np.uint8), "audio": noise.uniform(-1, 1, 48000)}
        for _ in range(2)
    ]
    batches = [processor(["<video>ab", "cdefg"], videos=videos[:1]), processor("hi<video>", videos=videos[1])]
    options = {"method": {"tokens": "all", "allocation": "uniform"}, "towers": {"sparsity": 0.4}, "progress": False}
    result = prune(golden_folder, batches, out=tmp_path / "run", accelerator="cpu", **options)
    assert result.towers_sparsity == pytest.approx(0.4, abs=1e-3)
    # the classifier of BEATs is kept only because checkpoints hold it: nothing reaches it
    assert {name.split(".")[1] for name in result.towers} == {
        "vision_tower",
        "mm_projector",
        "audio_tower",
        "mm_projector_a",
    }
    assert not any("predictor" in name for name in result.towers)
    before, after = (load_file(f / "model.safetensors") for f in (golden_folder, result.checkpoint))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert set(before) == set(after)
    assert len(changed) == 14 + len(result.towers)
    here = AutoModelForCausalLM.from_pretrained(golden_folder).eval()
    same = prune(here, batches, accelerator="cpu", **options)
    assert same.towers == result.towers
    loaded = AutoModelForCausalLM.from_pretrained(result.checkpoint).eval()
    with torch.no_grad():
        for batch in batches:
            assert torch.equal(loaded(**batch, use_cache=False).logits, here(**batch, use_cache=False).logits)
