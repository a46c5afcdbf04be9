import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Chunk, Transpose, WeightConverter, WeightRenaming

from tamp_lightning.checkpoint import names, skeleton
from tamp_lightning.checkpoint.names import map_keys
from tamp_lightning.checkpoint.reader import CheckpointReader
from tamp_lightning.checkpoint.skeleton import build_skeleton
from tamp_lightning.methods.selection import Selection
from tamp_lightning.stream import DiskStream

from ..stream.conftest import logits, make_llama, make_llava, prune, save, tensors_of, text_config


def test_old_hub_keys_map_to_todays_modules(tmp_path):
    source = save(make_llava(), tmp_path / "source", sharded=True, old=True)
    reader = CheckpointReader(source)
    assert "language_model.lm_head.weight" in reader.shard_of
    assert "vision_tower.vision_model.embeddings.class_embedding" in reader.shard_of
    keys = map_keys(build_skeleton(reader, None), reader, "model.language_model.layers")
    assert keys.blocks[1]["mlp.up_proj.weight"] == "language_model.model.layers.1.mlp.up_proj.weight"
    assert [len(block) for block in keys.blocks] == [9, 9, 9]
    assert sorted([key for block in keys.blocks for key in block.values()] + list(keys.others)) == sorted(
        reader.shard_of
    )
    assert keys.missing == frozenset()


def test_a_tied_head_may_be_absent(tmp_path):
    source = save(make_llava(tied=True), tmp_path / "source", old=True)
    reader = CheckpointReader(source)
    keys = map_keys(build_skeleton(reader, None), reader, "model.language_model.layers")
    assert keys.missing == {"lm_head.weight"}
    stream = DiskStream(source, tmp_path / "out")
    assert stream.model.lm_head.weight is stream.model.model.language_model.embed_tokens.weight


def edit(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata={"format": "pt"})


def convert_with(monkeypatch, *converters):
    for module in (names, skeleton):
        monkeypatch.setattr(module, "get_model_conversion_mapping", lambda _: list(converters))


def test_keys_a_newer_model_does_not_have_are_kept_in_the_output(tmp_path):
    source = save(make_llama(), tmp_path / "source")
    # Checkpoints of 2023 hold this buffer per layer; transformers knows to ignore it.
    edit(
        source / "model.safetensors",
        lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
    )
    stream = DiskStream(source, tmp_path / "out")
    prune(stream)
    stream.finish()
    assert tensors_of(tmp_path / "out")["model.layers.0.self_attn.rotary_emb.inv_freq"].tolist() == [1] * 4


def test_a_merged_linear_of_a_block_is_refused_with_the_reason(tmp_path, monkeypatch):
    source = save(make_llama(), tmp_path / "source")

    def merge(tensors):
        for k in range(3):
            halves = [tensors.pop(f"model.layers.{k}.mlp.{name}_proj.weight") for name in ("gate", "up")]
            tensors[f"model.layers.{k}.mlp.gate_up.weight"] = torch.cat(halves)

    edit(source / "model.safetensors", merge)
    targets = ["mlp.gate_proj.weight", "mlp.up_proj.weight"]
    convert_with(monkeypatch, WeightConverter(["mlp.gate_up.weight"], targets, [Chunk(dim=0)]))
    reason = (
        r"layers\.0\.mlp\.gate_proj\.weight is not stored as it is used: .*gate_up\.weight by Chunk.*: exclude it, or"
    )
    with pytest.raises(ValueError, match=reason):
        DiskStream(source, tmp_path / "out")
    stream = DiskStream(source, tmp_path / "out", selection=Selection(exclude=["gate_proj", "up_proj"]))
    for index in range(3):
        block, dense = stream.load(index), make_llama().model.layers[index]
        assert all(torch.equal(value, dense.state_dict()[name]) for name, value in block.state_dict().items())
    prune(stream)
    stream.finish()
    assert tensors_of(tmp_path / "out").keys() == tensors_of(source).keys()


def test_conversions_outside_the_blocks_are_transformers_business(tmp_path, monkeypatch):
    model = make_llama()
    source = save(model, tmp_path / "source")
    edit(
        source / "model.safetensors",
        lambda t: t.update({"model.turned.weight": t.pop("model.embed_tokens.weight").T}),
    )
    convert_with(
        monkeypatch,
        WeightConverter(["model.turned.weight"], ["model.embed_tokens.weight"], [Transpose(0, 1)]),
    )
    stream = DiskStream(source, tmp_path / "out")
    for index in range(3):
        stream.load(index)
    assert torch.equal(logits(stream.model), logits(model))


def test_two_keys_of_one_tensor_are_refused(tmp_path):
    source = save(make_llava(), tmp_path / "source")
    edit(
        source / "model.safetensors",
        lambda t: t.update({"language_model.lm_head.weight": t["lm_head.weight"].clone()}),
    )
    with pytest.raises(ValueError, match=r"both mean lm_head\.weight"):
        DiskStream(source, tmp_path / "out")


class OutsideConfig(LlamaConfig):
    model_type = "tamp_test_outside"


class OutsideForCausalLM(LlamaForCausalLM):
    config_class = OutsideConfig


def test_a_class_and_its_key_mapping_may_be_registered_from_outside(tmp_path):
    AutoConfig.register("tamp_test_outside", OutsideConfig)
    AutoModelForCausalLM.register(OutsideConfig, OutsideForCausalLM)
    register_checkpoint_conversion_mapping("tamp_test_outside", [WeightRenaming("^old_head", "lm_head")])
    torch.manual_seed(0)
    model = OutsideForCausalLM(text_config(OutsideConfig)).eval()
    source = save(model, tmp_path / "source")
    tensors = tensors_of(source)
    tensors = {key.replace("lm_head", "old_head"): value for key, value in tensors.items()}
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    stream = DiskStream(source, tmp_path / "out")
    assert type(stream.model) is OutsideForCausalLM
    for index in range(3):
        stream.load(index)
    assert torch.equal(logits(stream.model), logits(model))
