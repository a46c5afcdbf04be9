"""Tiny random models, samples with and without a picture, a real processor over a tiny tokenizer."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedModel,
)

from tamp_lightning.data.calibration import CalibrationData, calibration_batch
from tamp_lightning.methods.method import Method
from tamp_lightning.passes.pruned import Pruned
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.stream import MemoryStream
from tamp_lightning.testbeds.smol_llava_next import build_processor

from .fixtures.tokenizer import word_tokenizer
from .stream.conftest import IMAGE_ID

os.environ.setdefault("HF_HUB_OFFLINE", "1")

PICTURE_TOKENS = 10


@pytest.fixture(autouse=True, scope="session")
def _own_answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Answers that runs keep go into a cache of these tests; assembled checkpoints stay in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAMP_ANSWERS", str(tmp_path_factory.mktemp("answers")))
        yield


TAMP = Method()
WANDA = Method(tokens="all", allocation="uniform")


@dataclass(frozen=True)
class Toy:
    """One sample of the tiny models: token ids, and pixels if ten of them stand for a picture."""

    ids: Tensor
    pixels: Tensor | None = None


def toys(kinds: str, seed: int = 0) -> list[Toy]:
    """Samples of different lengths, `t` text alone, `p` with a picture between two texts."""
    generator = torch.Generator().manual_seed(seed)

    def make(kind: str) -> Toy:
        length = int(torch.randint(15, 26, (), generator=generator))
        ids = torch.randint(1, 80, (length,), generator=generator)
        if kind == "t":
            return Toy(ids)
        start = int(torch.randint(1, length - PICTURE_TOKENS - 1, (), generator=generator))
        ids[start : start + PICTURE_TOKENS] = IMAGE_ID
        return Toy(ids, torch.randn(2, 3, 8, 8, generator=generator))

    return [make(kind) for kind in kinds]


def as_batch(samples: Sequence[Toy], pad: int = 0) -> dict[str, Tensor]:
    """What a processor gives: right padding, an attention mask, all pictures one after another."""
    length = max(len(s.ids) for s in samples)
    ids = torch.full((len(samples), length), pad)
    mask = torch.zeros_like(ids)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = sample.ids
        mask[row, : len(sample.ids)] = 1
    batch = {"input_ids": ids, "attention_mask": mask}
    pixels = [s.pixels for s in samples if s.pixels is not None]
    if pixels:
        batch |= {"pixel_values": torch.stack(pixels), "image_sizes": torch.tensor([[8, 8]] * len(pixels))}
    return batch


def calibration(samples: Sequence[Toy], size: int, order: Sequence[int] | None = None, pad: int = 0) -> CalibrationData:
    """Batches of `size` samples in the order given; a sample keeps its id wherever it stands."""
    order = list(order or range(len(samples)))
    chunks = [order[k : k + size] for k in range(0, len(order), size)]
    batches = [calibration_batch(as_batch([samples[i] for i in chunk], pad), chunk) for chunk in chunks]
    return CalibrationData(DataLoader(batches, batch_size=None))  # type: ignore[arg-type]


def run(model: PreTrainedModel, data: CalibrationData, method: Method = TAMP, *watchers: L.Callback) -> Pruned:
    """Prune in memory; `watchers` are called after our own callbacks."""
    options: dict[str, Any] = {"accelerator": "cpu", "callbacks": list(watchers)}
    return prune_stream(MemoryStream(model), data, method, progress=False, **options)


def hashes(pruned: Pruned) -> dict[str, str]:
    return {name: row["sha256"] for name, row in pruned.linears.items()}


WORDS = """
system user assistant You are a helpful AI named SmolLM trained by Hugging Face what color colour is the shape
there not no yes in image picture does contain present black blue brown gray green red teal yellow circle
rectangle triangle of an it Is Does What
"""


@pytest.fixture(scope="session")
def processor() -> Any:
    """The bed's processor (64-pixel pictures, 88 tokens each) over words, spaces, marks and single letters."""
    marks = ["\n", " ", "?", ",", "."]
    return build_processor(word_tokenizer([*marks, *dict.fromkeys(WORDS.split())]))


@pytest.fixture(scope="session")
def bed(processor: Any) -> LlavaNextForConditionalGeneration:
    """A random float32 model that fits `processor`; tests must not change it."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=len(processor.tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=processor.image_token_id,
        image_grid_pinpoints=[[64, 64]],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    return LlavaNextForConditionalGeneration(config).eval()
