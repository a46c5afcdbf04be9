"""Pruned towers in several families: tokens that count, disk equals memory, what is saved loads, nothing else moves."""

from pathlib import Path

import pytest
import torch
import transformers

from tamp_lightning import prune
from tamp_lightning.tasks.inspect import inspect_checkpoint

from ..conftest import as_batch, toys
from ..stream.conftest import layout_of, make_llava, save, tensors_of
from .families import FAMILIES, WANDA, Family

OPTIONS = {"progress": False, "accelerator": "cpu"}
TOWERS = {"sparsity": 0.5}
# Tokens that a linear reads in all batches of a family: in a tower, and before the decoder.
TOKENS = {
    "llava_next_llama": {
        "vision_tower.encoder.layers.1.mlp.fc2": 3 * 2 * 5,
        "multi_modal_projector.linear_2": 3 * 2 * 4,
    },
    "llava_onevision": {
        "vision_tower.encoder.layers.1.mlp.fc2": 4 * (8 + 12),
        "multi_modal_projector.linear_1": 4 * 20,
    },
    "pixtral": {"vision_tower.transformer.layers.0.attention.q_proj": 3 * 4, "multi_modal_projector.linear_1": 3 * 4},
    "qwen2_5_vl": {"visual.blocks.1.attn.qkv": 4 * (16 + 32), "visual.merger.mlp.0": 4 * (4 + 8)},
    "qwen2_audio": {"audio_tower.layers.1.fc2": 3 * 10, "multi_modal_projector.linear": 3 * 5},
    "qwen2_5_omni": {"audio_tower.layers.0.fc1": 4 * 10, "audio_tower.proj": 4 * 5, "visual.merger.mlp.2": 4 * 8},
}


def samples_of(family: Family) -> int:
    return sum(len(batch["input_ids"]) for batch in family.batches())


@torch.no_grad()
def logits(model: torch.nn.Module, family: Family) -> list[torch.Tensor]:
    return [model(**batch, use_cache=False).logits for batch in family.batches()]


@pytest.mark.parametrize("name", TOKENS)
def test_family(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    model, dense = family.make(), family.make()
    here = prune(model, family.batches(), towers=TOWERS, method=family.method, **OPTIONS)
    for linear, tokens in TOKENS[name].items():
        name = next(n for n in here.towers if n.endswith(linear))  # transformers 5.20 has no "model." before some
        per_sample = here.towers[name]["tokens_per_sample"]
        assert per_sample * samples_of(family) == pytest.approx(tokens), linear
    # Both budgets are met, and nothing else has changed.
    assert here.towers_sparsity == pytest.approx(0.5, abs=1e-3)
    assert here.sparsity == pytest.approx(0.5, abs=1e-3)
    for full, value in dense.named_parameters():
        masked = full.removesuffix(".weight") in here.plan | here.towers
        mask = here.mask(full.removesuffix(".weight")) if masked else torch.ones_like(value, dtype=torch.bool)
        assert torch.equal(model.get_parameter(full), value * mask), full
    # Saved and loaded again it computes the same; pruned from disk it is the same.
    model.save_pretrained(tmp_path / "pruned")
    dense.save_pretrained(tmp_path / "dense")
    there = prune(
        tmp_path / "dense", family.batches(), towers=TOWERS, method=family.method, out=tmp_path / "out", **OPTIONS
    )
    assert there.towers == here.towers
    assert {n: row["sha256"] for n, row in there.plan.items()} == {n: row["sha256"] for n, row in here.plan.items()}
    for folder in ("pruned", "out/model"):
        again = getattr(transformers, family.model).from_pretrained(tmp_path / folder).eval()
        assert all(torch.equal(a, b) for a, b in zip(logits(again, family), logits(model, family), strict=True))
    found = inspect_checkpoint(tmp_path / "dense")
    assert (found.towers, found.tower_weights) == (len(here.towers), sum(row["size"] for row in here.towers.values()))


@pytest.mark.parametrize("old", [False, True])
def test_on_disk_nothing_but_pruned_weights_has_other_bytes(tmp_path: Path, old: bool) -> None:
    source = save(make_llava(), tmp_path / "source", sharded=True, old=old)
    samples = toys("ptp")
    options = {
        "method": WANDA,
        "towers": {"sparsity": 0.3, "exclude": ["linear_2"]},
        "out": tmp_path / "out",
        **OPTIONS,
    }
    result = prune(source, [as_batch(samples[:2]), as_batch(samples[2:])], dtype=torch.bfloat16, **options)
    assert result.checkpoint is not None
    assert layout_of(result.checkpoint) == layout_of(source)
    assert len(layout_of(source)) > 2
    before, after = tensors_of(source), tensors_of(result.checkpoint)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert len(changed) == len(result.plan) + len(result.towers)
    assert sum("vision_tower" in key for key in changed) == 12
    for key in changed:
        assert torch.equal(after[key], before[key] * (after[key] != 0)), key


def test_what_the_padding_of_a_sound_holds_does_not_matter() -> None:
    family, plans = FAMILIES["qwen2_audio"], []
    for noise in (0.0, 1e3):
        batches = family.batches()
        for batch in batches:
            if "input_features" in batch:
                batch["input_features"][..., 24:] += noise  # 20 frames are sound, and a convolution sees 2 beyond
        plans.append(prune(family.make(), batches, towers=TOWERS, method=WANDA, **OPTIONS).towers)
    assert plans[0] == plans[1]


def test_a_tower_that_no_sample_reaches_stays_dense(tmp_path: Path) -> None:
    family = FAMILIES["qwen2_5_omni"]
    model, dense = family.make(), family.make()
    batches = [family.sample(("audio",), 14, 3)]
    result = prune(model, batches, towers=TOWERS, method=WANDA, **OPTIONS)
    assert all("audio_tower." in name for name in result.towers)
    sees = [name for name, _ in dense.named_parameters() if "visual." in name]
    assert sees
    assert all(torch.equal(model.get_parameter(name), dense.get_parameter(name)) for name in sees)
    dense.save_pretrained(tmp_path / "dense")
    there = prune(tmp_path / "dense", batches, towers=TOWERS, method=WANDA, out=tmp_path / "out", **OPTIONS)
    assert there.towers == result.towers
    again = getattr(transformers, family.model).from_pretrained(tmp_path / "out" / "model").eval()
    assert all(torch.equal(a, b) for a, b in zip(logits(again, family), logits(model, family), strict=True))
    with pytest.raises(
        ValueError, match=r"towers\.include 'visual' asks for linears that no .* such as (model\.)?visual\."
    ):
        prune(family.make(), batches, towers={"sparsity": 0.5, "include": ["audio", "visual"]}, method=WANDA, **OPTIONS)


def with_pixel_mask(shown: tuple[int, ...], padded: bool) -> list[dict[str, torch.Tensor]]:
    """Two pictures of Idefics 3, those not shown filling up the row, or the last one padded inside."""
    batch = FAMILIES["idefics3"].sample(("image",), 12, 1)
    mask = torch.ones(1, 2, 8, 8, dtype=torch.int64)
    for number in {0, 1} - set(shown):
        batch["pixel_values"][:, number] = 0
        mask[:, number] = 0
    mask[:, shown[-1], 4:] *= not padded
    keep = batch["input_ids"][0] != 90
    keep |= (~keep).cumsum(0) <= len(shown)
    return [{k: v[:, keep] if v.ndim == 2 else v for k, v in (batch | {"pixel_attention_mask": mask}).items()}]


@pytest.mark.parametrize("shown", [(0, 1), (0,)])
def test_pictures_that_fill_up_a_row_do_not_count(shown: tuple[int, ...]) -> None:
    result = prune(FAMILIES["idefics3"].make(), with_pixel_mask(shown, False), towers=TOWERS, method=WANDA, **OPTIONS)
    assert {row["tokens_per_sample"] for row in result.towers.values()} == {4.0 * len(shown), len(shown)}


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("idefics3", lambda: with_pixel_mask((0, 1), True), "pixel_attention_mask marks padding, and which tokens"),
        ("mllama", lambda: FAMILIES["mllama"].batches(), "has no linear outside of its decoder of which it is known"),
    ],
)
def test_towers_whose_padding_is_not_known_are_refused(name, make, reason) -> None:
    model = FAMILIES[name].make()
    with pytest.raises(ValueError, match=reason) as error:
        prune(model, make(), towers=TOWERS, method=WANDA, **OPTIONS)
    assert "\n" not in str(error.value)
    dense = FAMILIES[name].make().state_dict()
    assert all(torch.equal(value, dense[key]) for key, value in model.state_dict().items())
