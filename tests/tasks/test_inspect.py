"""`tamp inspect` on checkpoints of which only headers are there."""

import json
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers as tf
from accelerate import init_empty_weights
from rich.console import Console
from transformers import PreTrainedModel

from tamp_lightning.methods.method import Method
from tamp_lightning.models.videollama2 import Videollama2Config, Videollama2Qwen2ForCausalLM
from tamp_lightning.tasks.inspect import inspect_checkpoint, run_inspect, show

from ..zoo.experts import WITH_EXPERTS
from ..zoo.families import FAMILIES, MROPE, TEXT, omni
from ..zoo.newer import NEWER, chameleon, gemma3n, idefics, jetmoe

MEDIA = ("image", "video", "audio")
DTYPES = {torch.bfloat16: "BF16", torch.float32: "F32", torch.int64: "I64"}


def write_hollow(model: PreTrainedModel, folder: Path) -> Path:
    """A checkpoint with the right header and a hole of the right size where the weights would be."""
    folder.mkdir(parents=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    header, end = {"__metadata__": {"format": "pt"}}, 0
    tied = model.all_tied_weights_keys or {}
    for name, value in model.state_dict().items():
        if name not in tied:
            start, end = end, end + value.numel() * value.element_size()
            header[name] = {"dtype": DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return folder


def llava_next_8b() -> PreTrainedModel:
    text = tf.LlamaConfig(
        vocab_size=128320, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=8192, rope_theta=500000.0,
    )  # fmt: skip
    vision = tf.CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
        patch_size=14, projection_dim=768,
    )  # fmt: skip
    config = tf.LlavaNextConfig(vision_config=vision, text_config=text, image_token_index=128256)
    with init_empty_weights(include_buffers=False):
        return tf.LlavaNextForConditionalGeneration._from_config(config, dtype=torch.bfloat16)


def videollama2_7b() -> PreTrainedModel:
    with init_empty_weights(include_buffers=False):
        return Videollama2Qwen2ForCausalLM._from_config(Videollama2Config.av_7b(), dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("make", "blocks", "block_parameters", "modalities"),
    [
        (llava_next_8b, 32, 32 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 4096 * 14336), ("text", "image")),
        (videollama2_7b, 28, 28 * (2 * 3584 * 3584 + 2 * 512 * 3584 + 3 * 3584 * 18944), ("text", *MEDIA)),
    ],
)  # fmt: skip
def test_a_large_checkpoint_is_inspected_in_seconds(make, blocks, block_parameters, modalities, tmp_path):
    folder = write_hollow(make(), tmp_path / "big")
    start = time.process_time()
    found = inspect_checkpoint(folder)
    assert time.process_time() - start < 20
    assert found.refusal is None
    assert sum(found.kinds.values()) == blocks
    assert sum(group.weights for group in found.groups) == block_parameters
    assert [group.count for group in found.groups] == [blocks] * 7
    assert found.modalities == modalities
    # Two of the blocks, not all of them.
    assert found.fixed_memory < 0.35 * found.disk
    assert found.disk > 14e9
    assert (folder / "model.safetensors").stat().st_blocks * 512 < 1e8


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen2_5_omni", "mllama", "qwen2"])
def test_what_is_shown_adds_up(name, tmp_path):
    model = FAMILIES[name].make()
    model.save_pretrained(tmp_path / "model")
    found = inspect_checkpoint(tmp_path / "model")
    assert sum(found.parts.values()) + found.block_parameters == model.num_parameters()
    assert sum(group.count for group in found.groups) == FAMILIES[name].linears
    console = Console(record=True, width=120)
    show(console, found)
    text = console.export_text()
    for part in (type(model).__name__, "self_attn.q_proj", "prunable", "memory to prune"):
        assert part in text
    if name == "gemma3":
        assert found.kinds == {"sliding_attention": 2, "full_attention": 2}
    if name == "mllama":
        assert found.dense == ("cross_attn.k_proj", "cross_attn.v_proj")


def test_what_would_be_refused_is_said(tmp_path):
    tf.JetMoeForCausalLM(jetmoe()).save_pretrained(tmp_path / "moe")
    console = Console(record=True, width=200)
    assert not run_inspect(str(tmp_path / "moe"), console)
    told = "cannot be pruned: model.layers.0.mlp.input_linear.weight stacks several matrices"
    assert told in console.export_text()


def test_tower_linears_are_named_as_prunable_on_request(tmp_path):
    model = FAMILIES["qwen2_5_omni"].make()
    model.save_pretrained(tmp_path / "thinker")
    console = Console(record=True, width=200)
    assert run_inspect(str(tmp_path / "thinker"), console)
    decoder = set(model.get_decoder().modules())
    sizes = [
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module not in decoder and name != "lm_head"
    ]
    text = console.export_text()
    assert f"towers and projector: {len(sizes)} linears of {sum(sizes):,} weights, dense unless towers.sparsity" in text
    for name in ("llama", "mllama"):
        FAMILIES[name].make().save_pretrained(tmp_path / name)
        show(console, inspect_checkpoint(tmp_path / name))
        assert "towers" not in console.export_text()


def test_of_a_whole_omni_the_thinker_can_be_pruned(tmp_path):
    talker = {**TEXT, "embedding_size": 32, "rope_parameters": MROPE}
    config = tf.Qwen2_5OmniConfig(thinker_config=omni().to_dict(), talker_config=talker)
    with init_empty_weights(include_buffers=False):
        whole = tf.Qwen2_5OmniForConditionalGeneration._from_config(config, dtype=torch.float32)
    folder = write_hollow(whole, tmp_path / "omni")
    console = Console(record=True, width=400)
    assert not run_inspect(str(folder), console)
    kind = "Qwen2_5OmniThinkerForConditionalGeneration"
    text = console.export_text()
    assert "Qwen2_5OmniForConditionalGeneration is 3 models side by side (thinker, talker, token2wav)" in text
    assert f"such as its thinker with {kind}.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)" in text
    getattr(tf, kind).from_pretrained(folder).save_pretrained(tmp_path / "thinker")
    assert run_inspect(str(tmp_path / "thinker"), console)


def test_the_command(tmp_path):
    FAMILIES["llava"].make().save_pretrained(tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-m", "tamp_lightning", "inspect", str(tmp_path / "model")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "LlavaForConditionalGeneration" in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "tamp_lightning", "inspect", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["qwen3_5", "lfm2_vl", "gemma4_shared", "phi4_multimodal", "blip2"])
def test_what_is_pruned_is_not_refused(name, tmp_path):
    NEWER[name].make().save_pretrained(tmp_path / "model")
    console = Console(record=True, width=200)
    assert run_inspect(str(tmp_path / "model"), console)
    text = console.export_text()
    hybrid = {"qwen3_5": "3 of 4 blocks have no attention", "lfm2_vl": "3 of 4 blocks have no attention"}
    assert ("blocks have no attention" in text) == (name in hybrid)
    assert hybrid.get(name, "") in text


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: tf.Gemma3nForCausalLM(gemma3n()), r"expected one [B,n,h]"),
        (lambda: tf.ChameleonForConditionalGeneration(chameleon()), "return a tuple"),
        (lambda: tf.IdeficsForVisionText2Text(idefics()), "does not run on text alone"),
    ],
)
def test_what_prune_refuses_is_refused(make, reason, tmp_path):
    make().save_pretrained(tmp_path / "model")
    console = Console(record=True, width=400)
    assert not run_inspect(str(tmp_path / "model"), console)
    assert reason in console.export_text()


def test_the_method_is_asked_for_too(tmp_path):
    FAMILIES["mllama"].make().save_pretrained(tmp_path / "mllama")
    console = Console(record=True, width=400)
    assert not run_inspect(str(tmp_path / "mllama"), console)
    assert "cannot be pruned by this method: tokens amia needs self-attention" in console.export_text()
    assert run_inspect(str(tmp_path / "mllama"), console, method=Method(tokens="all"))
    FAMILIES["llama"].make().save_pretrained(tmp_path / "llama")
    options = ["--method.allocation=uniform", "--method.pattern=3:7"]
    done = subprocess.run(
        [sys.executable, "-m", "tamp_lightning", "inspect", str(tmp_path / "llama"), *options],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "3:7" in done.stdout + done.stderr


@pytest.mark.parametrize(("name", "layers", "place"), [("llama4_moe", 4, "feed_forward"), ("step3p7", 2, "mlp")])
def test_experts_that_the_registry_does_not_run_are_told_too(tmp_path, name, layers, place):
    family = WITH_EXPERTS[name]
    family.make().save_pretrained(tmp_path)
    console = Console(record=True, width=200)
    assert run_inspect(str(tmp_path), console)
    assert f"experts: 4 in each of {layers} layers, 2 for each token" in console.export_text()
    groups = {group.name: group.count for group in inspect_checkpoint(tmp_path).groups}
    assert groups[f"{place}.experts.*.down_proj"] == 4 * layers
    assert sum(groups.values()) == family.linears


def test_experts_are_told(tmp_path):
    WITH_EXPERTS["qwen3_vl_moe"].make().save_pretrained(tmp_path)
    console = Console(record=True, width=200)
    assert run_inspect(str(tmp_path), console)
    text = console.export_text()
    assert "experts: 4 in each of 4 layers, 2 for each token" in text
    assert "192,000 where routing is even" in text
    [group] = [g for g in inspect_checkpoint(tmp_path).groups if g.name == "mlp.experts.*.down_proj"]
    assert (group.shape, group.count) == ((32, 16), 16)
    found = inspect_checkpoint(tmp_path).experts
    assert found.weights == 4 * 4 * 3 * 32 * 16
    assert found.active == found.weights // 2
