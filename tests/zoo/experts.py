"""Tiny models of families with experts, whichever way these are stacked, stored and called."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import transformers as tf
from torch import Tensor

from .families import (
    AUDIO,
    IMAGE,
    MROPE,
    QWEN3_VISION,
    QWEN_GRIDS,
    QWEN_TYPES,
    TEXT,
    TOWER,
    VIDEO,
    WANDA,
    Family,
    pixels,
    text,
)
from .newer import EXPERTS, FULL, LINEAR, NEWER, PARTIAL_ROPE, longcat, step3p7

DEEPSEEK = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_shared_experts": 1, "n_group": 1,
    "topk_group": 1, "first_k_dense_replace": 1,
}  # fmt: skip
LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
    "num_key_value_heads": 4,
}  # fmt: skip
PICTURES = {"image": QWEN_GRIDS["image"]}


def qwen3_next() -> Any:
    return text(
        tf.Qwen3NextConfig, **EXPERTS, shared_expert_intermediate_size=24, linear_key_head_dim=8,
        linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4,
        layer_types=[LINEAR, LINEAR, LINEAR, FULL], rope_parameters=PARTIAL_ROPE,
    )  # fmt: skip


def qwen3_omni() -> Any:
    audio = {"num_mel_bins": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24,
             "d_model": 16, "max_source_positions": 64, "n_window": 20, "output_dim": 32,
             "downsample_hidden_size": 8}  # fmt: skip
    return tf.Qwen3OmniMoeThinkerConfig(
        audio_config=audio, vision_config=QWEN3_VISION,
        text_config={**TEXT, "rope_parameters": MROPE, **EXPERTS},
        audio_token_id=AUDIO, image_token_id=IMAGE, video_token_id=VIDEO, audio_start_token_id=83, user_token_id=85,
        vision_start_token_id=80, vision_end_token_id=81,
    )  # fmt: skip


def glm4v_moe() -> Any:
    vision = {"depth": 2, "hidden_size": 16, "num_heads": 2, "image_size": 8, "patch_size": 4, "out_hidden_size": 32,
              "intermediate_size": 24}  # fmt: skip
    return tf.Glm4vMoeConfig(
        vision_config=vision,
        text_config={**TEXT, **DEEPSEEK, "head_dim": 8, "rope_parameters": {**MROPE, "partial_rotary_factor": 1.0}},
        image_token_id=IMAGE, video_token_id=VIDEO, image_start_token_id=80, image_end_token_id=81,
        video_start_token_id=82, video_end_token_id=85,
    )  # fmt: skip


def aria() -> Any:
    sizes = {**TEXT, "moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1, "head_dim": 8}
    return tf.AriaConfig(
        vision_config={"model_type": "idefics3_vision", **TOWER}, text_config=sizes, image_token_index=IMAGE,
        projector_patch_to_query_dict={4: 4},
    )  # fmt: skip


def ernie() -> Any:
    vision = {"depth": 2, "hidden_size": 16, "num_heads": 2, "patch_size": 4, "intermediate_size": 24}
    sizes = {**TEXT, "moe_intermediate_size": [16, 8], "moe_k": 2, "moe_num_experts": 4, "moe_num_shared_experts": 1,
             "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
             "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}  # fmt: skip
    return tf.Ernie4_5_VLMoeConfig(
        vision_config=vision, text_config=sizes, image_start_token_id=80, image_end_token_id=81, image_token_id=IMAGE,
        video_start_token_id=82, video_end_token_id=85, video_token_id=VIDEO,
    )  # fmt: skip


def flat_patches(generator: torch.Generator) -> tuple[int, dict[str, Tensor]]:
    """Sixteen patches of one picture, which become four tokens."""
    grid = torch.tensor([[1, 4, 4]])
    return 4, {"pixel_values": torch.randn(16, 48, generator=generator), "image_grid_thw": grid}


def kimi() -> Any:
    vision = {"patch_size": 4, "pos_emb_height": 4, "pos_emb_width": 4, "num_attention_heads": 2,
              "num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 24}  # fmt: skip
    return tf.Kimi_K25Config(
        vision_config=vision, text_config={"model_type": "deepseek_v3", **TEXT, **DEEPSEEK, **LATENT},
        projection_hidden_size=16, image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=80,
        vision_end_token_id=81,
    )  # fmt: skip


def kimi_patches(generator: torch.Generator) -> tuple[int, dict[str, Tensor]]:
    """Likewise, as pictures of one patch each."""
    grid = torch.tensor([[1, 4, 4]])
    return 4, {"pixel_values": torch.randn(16, 3, 4, 4, generator=generator), "image_grid_thw": grid}


def mistral4() -> Any:
    return text(tf.Mistral4Config, **DEEPSEEK, **LATENT)


def gpt_oss() -> Any:
    return text(tf.GptOssConfig, num_local_experts=4, num_experts_per_tok=2, head_dim=8, sliding_window=6)


ERNIE_TYPES = lambda ids, types: {"mm_token_type_ids": types, "moe_mm_token_type_ids": types}  # noqa: E731


def _moe(name: str, linears: int) -> Family:
    """A family of `newer` with its experts."""
    return replace(NEWER[name], exclude=(), linears=linears)


WITH_EXPERTS: dict[str, Family] = {
    "mixtral": _moe("mixtral", 4 * (4 + 12)),
    "qwen3_vl_moe": _moe("qwen3_vl_moe", 4 * (4 + 12)),
    "qwen3_5_moe": _moe("qwen3_5_moe", 3 * 8 + 7 + 4 * 12),
    "gemma4_moe": _moe("gemma4_moe", 2 * 7 + 2 * 6 + 4 * 12),
    "qwen3_next": Family("Qwen3NextForCausalLM", qwen3_next, linears=3 * 6 + 7 + 4 * 12),
    "qwen3_omni": Family(
        "Qwen3OmniMoeThinkerForConditionalGeneration", qwen3_omni, PICTURES, linears=4 * (4 + 12), tolerance=2e-6
    ),
    "glm4v_moe": Family(
        "Glm4vMoeForConditionalGeneration", glm4v_moe, PICTURES, QWEN_TYPES, linears=4 * 4 + 4 * 3 + 3 * 12
    ),
    "aria": Family("AriaForConditionalGeneration", aria, {"image": pixels(1, 4)}, linears=4 * (7 + 12)),
    "ernie": Family(
        "Ernie4_5_VLMoeForConditionalGeneration", ernie, {"image": flat_patches}, ERNIE_TYPES,
        linears=4 * 4 + 3 + 3 * (3 + 24), tolerance=2e-6,
    ),
    "kimi": Family(
        "Kimi_K25ForConditionalGeneration", kimi, {"image": kimi_patches}, linears=4 * 5 + 4 * 3 + 3 * 12
    ),
    "mistral4": Family("Mistral4ForCausalLM", mistral4, linears=4 * 5 + 4 * 3 + 3 * 12),
    "gpt_oss": Family("GptOssForCausalLM", gpt_oss, method=WANDA, linears=4 * (4 + 12)),
    "llama4_moe": _moe("llama4_moe", 4 * (7 + 12)),
    "step3p7": Family(
        "Step3p7ForConditionalGeneration", step3p7, {"image": pixels(1, 4, shape=(3, 16, 16))},
        linears=2 * (5 + 3) + 2 * (5 + 3 + 12),
    ),
    "longcat": Family("LongcatFlashForCausalLM", longcat, linears=2 * (2 * 5 + 2 * 3 + 12)),
}  # fmt: skip
