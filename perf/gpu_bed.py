"""A LLaVA-NeXT of random weights and samples for it, made where it is measured, and a small one to try scripts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedModel,
)

from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.resources import cache_folder
from tamp_lightning.testbeds.shapes import empty_model, llava_next_8b_model, write_random


@dataclass(frozen=True)
class Bed:
    """A model and the samples that it is calibrated with."""

    name: str
    image_token: int
    picture: int
    """Pixels of a side."""
    picture_tokens: int
    pictures: int
    """In a sample."""
    tokens: int
    """Of a sample, pictures included."""

    @property
    def folder(self) -> Path:
        """Its checkpoint."""
        return cache_folder() / f"gpu-check-{self.name}"

    def model(self) -> PreTrainedModel:
        """On the meta device."""
        return llava_next_8b_model(self.image_token) if self is LARGE else _small(self.image_token)

    def make(self) -> Path:
        """The folder, written unless it is there."""
        if not (self.folder / "config.json").is_file():
            write_random(self.model(), self.folder)
        return self.folder

    def calibration(self, samples: int, size: int) -> CalibrationData:
        """Batches of `size` samples of equal length, text around the pictures."""
        generator, batches = torch.Generator().manual_seed(0), []
        for start in range(0, samples, size):
            count = min(size, samples - start)
            ids = torch.randint(10, self.image_token, (count, self.tokens), generator=generator)
            for k in range(self.pictures):
                first = 20 + k * (self.picture_tokens + 10)
                ids[:, first : first + self.picture_tokens] = self.image_token
            pixels = torch.randn(count * self.pictures, 2, 3, self.picture, self.picture, generator=generator)
            batches.append(
                {
                    "input_ids": ids,
                    "pixel_values": pixels,
                    "image_sizes": torch.full((count * self.pictures, 2), self.picture),
                }
            )
        return CalibrationData.from_batches(batches)


LARGE = Bed("8b", 128_255, 336, 1176, 2, 2900)
"""Two pictures of 1,176 tokens and 548 tokens of text: 2,900, as one picture of five tiles has in LLaVA-NeXT."""
SMALL = Bed("small", 500, 28, 10, 2, 60)


def _small(image_token: int) -> PreTrainedModel:
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=160, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=2,
    )  # fmt: skip
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image_token,
        image_grid_pinpoints=[[28, 28]],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    return empty_model(LlavaNextForConditionalGeneration, config)


def block_flops(bed: Bed, samples: int) -> float:
    """Of the products of one pass of the samples over one decoder block, attention included."""
    text = bed.model().config.get_text_config()
    head = text.hidden_size // text.num_attention_heads
    attention = text.hidden_size * head * (2 * text.num_attention_heads + 2 * text.num_key_value_heads)
    weights = attention + 3 * text.hidden_size * text.intermediate_size
    causal = 2 * bed.tokens**2 * text.hidden_size  # two products of n x n x h, half of each
    return samples * math.fsum((2 * bed.tokens * weights, causal))
