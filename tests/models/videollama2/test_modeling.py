"""What the official code cannot do, or does only one sample at a time."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from .conftest import golden_batch

SOUND_FRAMES = 98


def sample(model, io, kinds: str, seed: int) -> dict[str, torch.Tensor]:
    """One sample: text, then the items named by ``kinds`` (i, v, a), then text again."""
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    visual, sound = config.video_tokens(), config.audio_config.tokens(SOUND_FRAMES)
    wide = {
        "i": [config.image_token_id] * visual,
        "v": [config.video_token_id] * visual,
        "a": [config.audio_token_id] * sound,
    }
    text = torch.randint(3, 500, (5 + 2 * seed,), generator=generator).tolist()
    ids = text[:3] + [k for kind in kinds for k in wide[kind]] + text[3:]
    noise = torch.randn(3, 98, 98, generator=generator)
    batch = {"input_ids": torch.tensor([ids])}
    if "i" in kinds:
        batch["pixel_values"] = (io["video"][0] + noise)[None]
    if "v" in kinds:
        batch["pixel_values_videos"] = (io["video"] + noise)[None]
    if "a" in kinds:
        batch["input_features"] = io["audio"][:, seed : seed + SOUND_FRAMES]
    return batch


def join(samples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A right-padded batch."""
    rows = [s["input_ids"][0] for s in samples]
    names = {name for s in samples for name in s} - {"input_ids"}
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad(rows, batch_first=True, padding_value=0),
        "attention_mask": pad([torch.ones_like(r) for r in rows], batch_first=True),
        **{name: torch.cat([s[name] for s in samples if name in s]) for name in names},
    }


@torch.no_grad()
@pytest.mark.parametrize("kinds", [["va", "i", "", "a", "v"], ["", "a"], ["iva", "va"], [""]])
def test_ragged_batches_equal_single_samples(model, io, kinds):
    samples = [sample(model, io, kind, seed) for seed, kind in enumerate(kinds)]
    together = model(**join(samples)).logits
    for row, alone in zip(together, samples, strict=True):
        expected = model(**alone).logits[0]
        # rounding of float32 alone: up to 2.4e-5 seen with AVX2 kernels
        assert torch.allclose(row[: len(expected)], expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_picture_is_a_video_of_equal_frames(model, io):
    picture = io["video"][:1]
    frames = picture.expand(model.config.num_frames, -1, -1, -1)
    assert torch.allclose(model.model.image_features(picture), model.model.video_features(frames[None]), atol=1e-6)


@torch.no_grad()
def test_other_features_change_the_logits_behind_them_only(model, io):
    batch = sample(model, io, "va", 1)
    other = batch | {"input_features": batch["input_features"] + 3}
    same = (model(**batch).logits == model(**other).logits).all(-1)[0]
    first_sound = 3 + model.config.video_tokens()
    assert bool(same[:first_sound].all())
    assert not bool(same[first_sound:].any())


@torch.no_grad()
def test_generation_encodes_media_once_and_equals_the_slow_way(model, io):
    batch = sample(model, io, "va", 1)
    found = model.generate(**batch, max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0)
    start = batch["input_ids"].shape[1]
    for _ in range(4):
        best = model(**batch).logits[:, -1].argmax(-1, keepdim=True)
        batch["input_ids"] = torch.cat([batch["input_ids"], best], dim=1)
    assert torch.equal(found[:, start:], batch["input_ids"][:, start:])


@torch.no_grad()
def test_loss_counts_the_labels_only(model, io):
    batch = golden_batch(model, io, "video")
    labels = torch.full_like(batch["input_ids"], -100)
    labels[0, -2:] = batch["input_ids"][0, -2:]
    logits = model(**batch).logits[0, -3:-1]
    expected = torch.nn.functional.cross_entropy(logits, labels[0, -2:])
    assert torch.allclose(model(**batch, labels=labels).loss, expected)
    assert torch.allclose(model(**batch, logits_to_keep=3).logits[0, :-1], logits, atol=1e-5, rtol=0)


def test_gradients_reach_towers_and_projectors(model, io):
    batch = sample(model, io, "va", 0)
    model(**batch).logits.sum().backward()
    for name in ("mm_projector.s1.b1.conv1.conv.weight", "audio_tower.encoder.pos_conv.0.weight_g"):
        assert model.model.get_parameter(name).grad.abs().sum() > 0
    model.zero_grad(set_to_none=True)


def test_placeholders_and_features_must_agree(model, io):
    batch = sample(model, io, "v", 0)
    with pytest.raises(ValueError, match="18 placeholders for pixel_values_videos, but its features are 0"):
        model(input_ids=batch["input_ids"])
    with pytest.raises(ValueError, match="0 placeholders for input_features, but its features are 248"):
        model(**batch, input_features=io["audio"])
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model()


@torch.no_grad()
def test_bfloat16_is_close_to_float32(golden_folder, io):
    model = AutoModelForCausalLM.from_pretrained(golden_folder, dtype=torch.bfloat16).eval()
    for found, expected in (
        (model.model.video_features(io["video"][None])[0], io["stc_out"]),
        (model.model.audio_tower(io["audio"])[0], io["beats_out"]),
        (model(**golden_batch(model, io, "av")).logits[0], io["av/logits"]),
    ):
        assert found.dtype == torch.bfloat16
        assert (found.float() - expected).norm() < 0.08 * expected.norm()
