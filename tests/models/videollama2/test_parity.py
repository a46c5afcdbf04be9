"""Against features, logits and masks of the official code on a tiny checkpoint in the official layout."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tamp_lightning.stream import AUDIO, VIDEO, find_facts

from .conftest import assemble, golden_batch

CASES = ("av", "video", "audio")
COPY = "model.audio_tower.encoder.layers.1.self_attn.relative_attention_bias.weight"


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return found.shape == expected.shape and float((found - expected).abs().max()) <= 1e-4


@torch.no_grad()
def test_features_of_every_stage(model, io):
    body = model.model
    vision = body.vision_tower(io["video"])
    assert close(vision, io["vision_features"])
    assert close(body.mm_projector(vision[None])[0], io["stc_out"])
    assert close(body.video_features(io["video"][None])[0], io["stc_out"])
    assert close(body.audio_tower(io["audio"])[0], io["beats_out"])
    assert close(body.audio_features(io["audio"])[0], io["audio_tokens"])


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_logits(model, io, case):
    assert close(model(**golden_batch(model, io, case)).logits[0], io[f"{case}/logits"])


@pytest.mark.parametrize("case", CASES)
def test_masks(model, io, case):
    batch = golden_batch(model, io, case)
    modality = find_facts(model).modality(batch)[0]
    assert torch.equal(modality == VIDEO, io[f"{case}/video_mask"])
    assert torch.equal(modality == AUDIO, io[f"{case}/audio_mask"])


@torch.no_grad()
def test_token_types_given_or_told_by_the_ids_are_the_same(model, io):
    batch = golden_batch(model, io, "av")
    types = find_facts(model).modality(batch)
    assert torch.equal(model(**batch).logits, model(**batch, mm_token_type_ids=types).logits)


@pytest.mark.parametrize("copies", [True, False])
def test_every_key_of_the_official_layout_is_used_and_written_back(tmp_path: Path, copies: bool):
    source = assemble(tmp_path / "source")
    stored = load_file(source / "model.safetensors")
    if not copies:
        del stored[COPY]
        save_file(stored, source / "model.safetensors", metadata={"format": "pt"})
    loaded, info = AutoModelForCausalLM.from_pretrained(source, output_loading_info=True)
    assert not any(info.values())
    loaded.save_pretrained(tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert set(stored) - set(written) == ({COPY} if copies else set())  # the shared table is written once
    assert all(torch.equal(written[key], stored[key]) for key in written)


@torch.no_grad()
def test_what_was_saved_loads_again(model, io, tmp_path: Path):
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    batch = golden_batch(model, io, "av")
    assert torch.equal(again(**batch).logits, model(**batch).logits)
