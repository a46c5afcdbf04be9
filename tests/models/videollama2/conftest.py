"""The tiny official checkpoint with its inputs and outputs, a tiny tokenizer, small real video and sound files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from tamp_lightning.models.videollama2 import Videollama2Config, Videollama2Processor, Videollama2Qwen2ForCausalLM

GOLDENS = Path(__file__).parents[2] / "goldens" / "videollama2"
SECONDS = 1.0  # of sound in the tests of the processor


def official(**changes: object) -> dict[str, object]:
    """The tiny checkpoint's config.json with the sizes of its towers put in."""
    towers = json.loads((GOLDENS / "towers.json").read_text())
    config = json.loads((GOLDENS / "config.json").read_text())
    return config | {"vision_config": towers["vision"], "audio_config": towers["audio"]} | changes


def assemble(folder: Path) -> Path:
    """The tiny checkpoint in the official layout."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(official()))
    shutil.copy(GOLDENS / "model.safetensors", folder)
    return folder


def tiny_config(**changes: object) -> Videollama2Config:
    """Configuration of the tiny checkpoint."""
    return Videollama2Config(**official(**changes))


def llama_config(**changes: object) -> LlamaConfig:
    sizes = {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True, "pad_token_id": 0,
    }  # fmt: skip
    return LlamaConfig(**(sizes | changes))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per letter, and the marks of the chat template."""
    letters = ["<pad>", "<end>", *(chr(c) for c in range(32, 127)), "\n"]
    tokenizer = Tokenizer(models.WordLevel({c: k for k, c in enumerate(letters)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")


@pytest.fixture(scope="session")
def golden_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assemble(tmp_path_factory.mktemp("golden") / "tiny")


@pytest.fixture(scope="session")
def io() -> dict[str, torch.Tensor]:
    with np.load(GOLDENS / "io.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="session")
def model(golden_folder: Path) -> Videollama2Qwen2ForCausalLM:
    return AutoModelForCausalLM.from_pretrained(golden_folder).eval()


@pytest.fixture
def processor() -> Videollama2Processor:
    config = tiny_config()
    return Videollama2Processor(make_tokenizer(), **Videollama2Processor.sizes(config, SECONDS))


def golden_batch(model: Videollama2Qwen2ForCausalLM, io: dict[str, torch.Tensor], case: str) -> dict[str, torch.Tensor]:
    """Inputs of a golden case: the official negative tags widened to placeholders."""
    config = model.config
    video = [config.video_token_id] * config.video_tokens()
    audio = [config.audio_token_id] * config.audio_config.tokens(io["audio"].shape[1])
    wide = {-201: video + (audio if case == "av" else []), -202: audio}
    ids = [k for token in io[f"{case}/input_ids"].tolist() for k in wide.get(token, [token])]
    batch = {"input_ids": torch.tensor([ids])}
    if case != "audio":
        batch["pixel_values_videos"] = io["video"][None]
    if case != "video":
        batch["input_features"] = io["audio"]
    return batch
