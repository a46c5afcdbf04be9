"""Tiny random checkpoints, saved as transformers saves them and as hub checkpoints of llava-hf are keyed."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

IMAGE_ID = 90
OLD_NAMES = {
    r"^model\.language_model\.": "language_model.model.",
    r"^lm_head\.": "language_model.lm_head.",
    r"^model\.vision_tower\.(vision_model\.)?": "vision_tower.vision_model.",
    r"^model\.(multi_modal_projector|image_newline)": r"\1",
}


def text_config(cls: type, **changes: object) -> object:
    sizes = {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
    }
    return cls(**(sizes | changes))


def make_llava(tied: bool = False) -> PreTrainedModel:
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=8,
        patch_size=4, projection_dim=16,
    )  # fmt: skip
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text_config(LlamaConfig, tie_word_embeddings=tied),
        image_token_index=IMAGE_ID,
        image_grid_pinpoints=[[8, 8]],
        tie_word_embeddings=tied,
    )
    return LlavaNextForConditionalGeneration(config).eval()


def make_llama(**changes: object) -> PreTrainedModel:
    torch.manual_seed(1)
    return LlamaForCausalLM(text_config(LlamaConfig, **changes)).eval()


def make_qwen2() -> PreTrainedModel:
    torch.manual_seed(2)
    model = Qwen2ForCausalLM(text_config(Qwen2Config, tie_word_embeddings=True)).eval()
    for name, value in model.named_parameters():
        if name.endswith("bias"):  # zero at birth, which would hide a bias that is not loaded
            torch.nn.init.normal_(value)
    return model


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llava": make_llava,
    "llava_tied": lambda: make_llava(tied=True),
    "llama": make_llama,
    "qwen2": make_qwen2,
}


def save(model: PreTrainedModel, folder: Path, *, sharded: bool = False, old: bool = False) -> Path:
    """Write a checkpoint: one file or shards, today's or the old hub's keys, with files beside it."""
    model.save_pretrained(folder, max_shard_size="20KB" if sharded else "5GB")
    for path in folder.glob("*.safetensors"):
        rekey(path, old_name if old else new_name)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        content = json.loads(index.read_text())
        content["weight_map"] = {
            (old_name if old else new_name)(key): name for key, name in content["weight_map"].items()
        }
        index.write_text(json.dumps(content, indent=2))
    (folder / "tokenizer.json").write_text('{"not": "really"}')
    (folder / "tokenizer.model").write_bytes(bytes(range(256)))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    (folder / "training_args.bin").write_bytes(b"pickle")
    (folder / ".hidden").write_text("x")
    return folder


def new_name(key: str) -> str:
    """Name of today's module; ``save_pretrained`` already writes some models the old way."""
    for old, new in (
        (r"^language_model\.model\.", "model.language_model."),
        (r"^language_model\.lm_head\.", "lm_head."),
        (r"^(model\.)?vision_tower\.(vision_model\.)?", "model.vision_tower."),
        (r"^(multi_modal_projector|image_newline)", r"model.\1"),
    ):
        key = re.sub(old, new, key)
    return key


def old_name(key: str) -> str:
    key = new_name(key)
    for new, old in OLD_NAMES.items():
        key = re.sub(new, old, key)
    return key


def rekey(path: Path, rename: Callable[[str], str]) -> None:
    tensors = {rename(key): value for key, value in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def inputs(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(1, 80, (1, 24), generator=generator)
    if "llava" not in model.config.model_type:
        return {"input_ids": ids}
    # One 8x8 picture: a base tile of 4 patches, and the same again as grid with a newline after each row.
    ids[0, 4:14] = IMAGE_ID
    pixels = torch.randn(1, 2, 3, 8, 8, generator=generator)
    return {"input_ids": ids, "pixel_values": pixels, "image_sizes": torch.tensor([[8, 8]])}


def logits(model: PreTrainedModel) -> torch.Tensor:
    batch = inputs(model)
    if "pixel_values" in batch:
        batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
    with torch.no_grad():
        return model(**batch, use_cache=False).logits


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def layout_of(folder: Path) -> dict[str, tuple[object, list[str]]]:
    """File name -> its metadata and keys."""
    layout = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            layout[path.name] = (file.metadata(), sorted(file.keys()))
    return layout


def halve(weight: torch.Tensor) -> torch.Tensor:
    """A mask that keeps about half, drawn from the weight's own values."""
    return weight.detach().abs() > weight.detach().abs().median()


def prune(stream, skip: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """Prune every block as the engine does; return full linear name -> mask."""
    masks = {}
    for index, linears in enumerate(stream.facts.linears):
        block = stream.load(index)
        own = {}
        for linear in linears:
            if linear.name not in skip:
                weight = linear.weight(block)
                own[linear.name] = masks[linear.full] = halve(weight)
                weight.data.mul_(own[linear.name])
        stream.commit(index, own)
        stream.release(index)
    return masks


@pytest.fixture
def llama_folder(tmp_path: Path) -> Path:
    return save(make_llama(), tmp_path / "source", sharded=True)
