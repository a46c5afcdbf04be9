"""Shape beds are checkpoints like any other, made without holding them in memory."""

import json

import pytest
import torch
from PIL import Image
from transformers import LlavaNextForConditionalGeneration

from tamp_lightning.checkpoint.reader import CheckpointReader
from tamp_lightning.models.videollama2 import Videollama2Config, Videollama2Qwen2ForCausalLM
from tamp_lightning.tasks.inspect import inspect_checkpoint
from tamp_lightning.testbeds import checkpoints
from tamp_lightning.testbeds import shapes as shape_beds
from tamp_lightning.testbeds.shapes import SHAPES, write_random

from ..stream.conftest import make_llava

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def test_a_written_bed_loads_without_a_missing_key_and_is_the_same_again(tmp_path, monkeypatch):
    monkeypatch.setattr(shape_beds, "CHUNK", 100)
    model = make_llava()
    for name in ("first", "second"):
        write_random(model, tmp_path / name, shard_bytes=20_000)
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("first", "second"))
    assert first == second
    shards = CheckpointReader(tmp_path / "first").shards
    assert len(shards) > 3
    assert all(shard.size < 25_000 for shard in shards.values())
    loaded, info = LlavaNextForConditionalGeneration.from_pretrained(
        tmp_path / "first", dtype="auto", output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    total = sum(p.numel() for p in model.parameters())
    assert json.loads(first["model.safetensors.index.json"])["metadata"]["total_size"] == 2 * total
    state = loaded.state_dict()
    matrix = state["model.language_model.layers.0.mlp.up_proj.weight"].float()
    assert matrix.std() == pytest.approx(0.02, rel=0.1)
    assert not torch.equal(matrix, state["model.language_model.layers.1.mlp.up_proj.weight"].float())
    assert bool((state["model.language_model.layers.0.input_layernorm.weight"] == 1).all())


def test_a_tiny_videollama2_bed_can_be_pruned(tmp_path):
    config = Videollama2Config.av_7b(**TINY, num_key_value_heads=2, vocab_size=96, vision_config=VISION)
    write_random(Videollama2Qwen2ForCausalLM._from_config(config), tmp_path / "bed")
    found = inspect_checkpoint(tmp_path / "bed")
    assert found.refusal is None
    assert sum(group.count for group in found.groups) == 14


@pytest.mark.parametrize(
    ("name", "language"), [("shape-llava-next-8b", 8_030_261_248), ("shape-videollama2-7b", 7_615_616_512)]
)
def test_language_models_have_the_size_of_llama_3_8b_and_qwen2_7b(name, language):
    model, processor = SHAPES[name]()
    assert all(p.is_meta for p in model.parameters())
    assert language == sum(p.numel() for part in (model.get_decoder(), model.lm_head) for p in part.parameters())
    if processor is not None:
        text = processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}])
        inputs = processor(text=[text], images=[Image.new("RGB", (64, 64))], return_tensors="pt")
        assert int((inputs["input_ids"] == model.config.image_token_index).sum()) == 1176


def test_a_bed_is_made_once_by_its_name(monkeypatch, tmp_path):
    made = []
    monkeypatch.setenv("TAMP_CACHE", str(tmp_path))
    monkeypatch.setitem(SHAPES, "shape-llava-next-8b", lambda: (made.append(1), (make_llava(), None))[1])
    folders = {checkpoints.resolve("shape-llava-next-8b") for _ in range(2)}
    assert folders == {tmp_path / "shape-llava-next-8b-1"}
    assert made == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["shape-llava-next-8b-1"]
