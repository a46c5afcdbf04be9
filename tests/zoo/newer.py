"""Tiny models of families with hybrid decoders, shared keys and values, latent attention, towers in the decoder."""

from __future__ import annotations

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
    SLIDING,
    TEXT,
    VIDEO,
    Family,
    pixels,
    text,
)

LINEAR, FULL = "linear_attention", "full_attention"
PARTIAL_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}


def qwen3_5(*kinds: str) -> Any:
    sizes = {**TEXT, "head_dim": 8, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
             "linear_num_value_heads": 4, "layer_types": list(kinds),
             "rope_parameters": {**PARTIAL_ROPE, "mrope_section": [1, 1, 2]}}  # fmt: skip
    vision = {k: v for k, v in QWEN3_VISION.items() if k != "deepstack_visual_indexes"}
    return tf.Qwen3_5Config(
        vision_config=vision, text_config=sizes, image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=80,
        vision_end_token_id=81,
    )  # fmt: skip


def qwen3_5_family(*kinds: str, linears: int) -> Family:
    pictures = {"image": QWEN_GRIDS["image"]}
    return Family("Qwen3_5ForConditionalGeneration", lambda: qwen3_5(*kinds), pictures, QWEN_TYPES, linears=linears)


def gemma4_vision() -> dict[str, Any]:
    return {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 2, "head_dim": 8, "patch_size": 4, "pooling_kernel_size": 2,
            "position_embedding_size": 64}  # fmt: skip


def gemma4(**changes: Any) -> Any:
    sizes = {**TEXT, "head_dim": 8, "global_head_dim": 8, "layer_types": SLIDING, "sliding_window": 6,
             "use_bidirectional_attention": "vision", "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0,
             "attention_k_eq_v": True, "num_global_key_value_heads": 1, **changes}  # fmt: skip
    return tf.Gemma4Config(
        vision_config=gemma4_vision(), text_config=sizes, audio_config=None, image_token_id=IMAGE,
        video_token_id=VIDEO, audio_token_id=AUDIO,
    )  # fmt: skip


def gemma4_shared() -> Any:
    return gemma4(
        num_kv_shared_layers=2, hidden_size_per_layer_input=8, vocab_size_per_layer_input=96, attention_k_eq_v=False,
        use_bidirectional_attention=None, num_global_key_value_heads=None,
    )  # fmt: skip


def placed_patches(generator: torch.Generator) -> tuple[int, dict[str, Tensor]]:
    """Sixteen patches with their places, pooled to four tokens."""
    places = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="xy"), -1).reshape(1, 16, 2)
    return 4, {"pixel_values": torch.rand(1, 16, 48, generator=generator), "image_position_ids": places}


def phi4() -> Any:
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
              "image_size": 16, "patch_size": 4, "crop_size": 16, "image_token_id": IMAGE}  # fmt: skip
    audio = {"hidden_size": 16, "intermediate_size": 24, "num_blocks": 2, "num_attention_heads": 2,
             "ext_pw_out_channel": 16, "input_size": 16, "depthwise_separable_out_channel": 16,
             "nemo_conv_channels": 8, "time_reduction": 4, "audio_token_id": AUDIO, "bias_max_distance": 8}  # fmt: skip
    return tf.Phi4MultimodalConfig(**TEXT, vision_config=vision, audio_config=audio, rope_parameters=PARTIAL_ROPE)


def crops(generator: torch.Generator) -> tuple[int, dict[str, Tensor]]:
    """A picture as the whole and one crop."""
    return 13, {
        "image_pixel_values": torch.randn(1, 2, 3, 16, 16, generator=generator),
        "image_sizes": torch.tensor([[16, 16]]),
        "image_attention_mask": torch.ones(1, 2, 4, 4).long(),
    }


def lfm2_vl() -> Any:
    sizes = {
        **TEXT,
        "layer_types": ["conv", "conv", FULL, "conv"],
        "conv_L_cache": 3,
        "block_auto_adjust_ff_dim": False,
    }
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
              "patch_size": 4, "num_patches": 16, "vision_use_head": False}  # fmt: skip
    return tf.Lfm2VlConfig(
        vision_config={"model_type": "siglip2_vision_model", **vision},
        text_config={"model_type": "lfm2", **sizes},
        image_token_id=IMAGE, projector_hidden_size=24, downsample_factor=2, tie_word_embeddings=False,
    )  # fmt: skip


def packed_patches(generator: torch.Generator) -> tuple[int, dict[str, Tensor]]:
    """Sixteen flattened patches of one picture, four of which become one token."""
    return 4, {
        "pixel_values": torch.randn(1, 16, 48, generator=generator),
        "spatial_shapes": torch.tensor([[4, 4]]),
        "pixel_attention_mask": torch.ones(1, 16).long(),
    }


def blip2() -> Any:
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 8, "patch_size": 4}  # fmt: skip
    qformer = {"vocab_size": 96, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
               "num_attention_heads": 2, "encoder_hidden_size": 16}  # fmt: skip
    opt = {"model_type": "opt", "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
           "ffn_dim": 48, "max_position_embeddings": 64, "word_embed_proj_dim": 32, "pad_token_id": 0}  # fmt: skip
    return tf.Blip2Config(
        vision_config=vision, qformer_config=qformer, text_config=opt, num_query_tokens=4, image_token_index=IMAGE
    )


def minimax(*kinds: str) -> Any:
    return text(tf.MiniMaxConfig, layer_types=list(kinds), num_local_experts=2, head_dim=8, block_size=4)


def llama4(**changes: Any) -> Any:
    sizes = {**TEXT, "intermediate_size_mlp": 48, "head_dim": 8, "num_local_experts": 4, "moe_layers": [], **changes}
    return tf.Llama4TextConfig(**sizes)


def chameleon() -> Any:
    vq = {"embed_dim": 16, "num_embeddings": 8, "latent_channels": 16, "resolution": 8, "base_channels": 32,
          "channel_multiplier": [1, 1], "num_res_blocks": 1, "double_latent": False}  # fmt: skip
    mapping = {"<image>": 90, **{f"IMGIMG{'A' * k}Z": 60 + k for k in range(8)}}
    return tf.ChameleonConfig(**TEXT, vq_config=vq, vocabulary_map=mapping)


def gemma3n() -> Any:
    return tf.Gemma3nTextConfig(
        **{**TEXT, "intermediate_size": [48] * 4}, head_dim=8, layer_types=SLIDING, sliding_window=6, laurel_rank=4,
        hidden_size_per_layer_input=8, vocab_size_per_layer_input=96, num_kv_shared_layers=0,
        activation_sparsity_pattern=[0.0] * 4,
    )  # fmt: skip


def idefics() -> Any:
    vision = {"embed_dim": 16, "image_size": 8, "patch_size": 4, "intermediate_size": 24, "num_hidden_layers": 2,
              "num_attention_heads": 2}  # fmt: skip
    perceiver = {"use_resampler": False}
    sizes = {k: v for k, v in TEXT.items() if k != "num_key_value_heads"}
    return tf.IdeficsConfig(
        **sizes, vision_config=vision, perceiver_config=perceiver, cross_layer_interval=2, additional_vocab_size=0,
        use_resampler=False,
    )  # fmt: skip


def latent_attention() -> Any:
    return text(
        tf.DeepseekV3Config, first_k_dense_replace=4, q_lora_rank=16, kv_lora_rank=8, qk_rope_head_dim=4,
        qk_nope_head_dim=4, v_head_dim=8, num_key_value_heads=4, n_routed_experts=4, moe_intermediate_size=16,
    )  # fmt: skip


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
DENSE_EXPERTS = (r"experts\.",)


def mixtral() -> Any:
    return text(tf.MixtralConfig, num_local_experts=4)


def qwen3_vl_moe() -> Any:
    sizes = {**TEXT, "rope_parameters": MROPE, **EXPERTS}
    return tf.Qwen3VLMoeConfig(
        vision_config=QWEN3_VISION, text_config=sizes, image_token_id=IMAGE, video_token_id=VIDEO,
        vision_start_token_id=80, vision_end_token_id=81,
    )  # fmt: skip


def qwen3_5_moe() -> Any:
    dense = qwen3_5(LINEAR, LINEAR, LINEAR, FULL).to_dict()
    return tf.Qwen3_5MoeConfig(
        vision_config={k: v for k, v in dense["vision_config"].items() if k != "model_type"},
        text_config={
            **{k: v for k, v in dense["text_config"].items() if k != "model_type"},
            **EXPERTS,
            "shared_expert_intermediate_size": 24,
        },
        image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=80, vision_end_token_id=81,
    )  # fmt: skip


def gemma4_moe() -> Any:
    return gemma4(enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=16)


def llama4_moe() -> Any:
    return llama4(moe_layers=[0, 1, 2, 3], num_experts_per_tok=2)


def longcat() -> Any:
    sizes = {key: value for key, value in TEXT.items() if key not in ("num_hidden_layers", "intermediate_size")}
    return tf.LongcatFlashConfig(
        **{**sizes, "num_key_value_heads": 4}, num_layers=2, ffn_hidden_size=48, n_routed_experts=4, zero_expert_num=2,
        expert_ffn_hidden_size=16, moe_topk=2, head_dim=4, q_lora_rank=16, kv_lora_rank=8, qk_rope_head_dim=4,
        qk_nope_head_dim=4, v_head_dim=8,
    )  # fmt: skip


def jetmoe() -> Any:
    sizes = {key: value for key, value in TEXT.items() if key not in ("num_attention_heads", "num_hidden_layers")}
    return tf.JetMoeConfig(**sizes, num_hidden_layers=2, kv_channels=8, num_local_experts=4, num_experts_per_tok=2)


def step3p7() -> Any:
    vision = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 2,
              "mlp_ratio": 2.0}  # fmt: skip
    sizes = {**TEXT, "head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
             "share_expert_dim": 24, "mlp_layer_types": ["dense", "sparse", "dense", "sparse"],
             "swiglu_limits": [0.0, 0.0, 0.0, 0.02], "layer_types": SLIDING, "sliding_window": 6}  # fmt: skip
    return tf.Step3p7Config(vision_config=vision, text_config=sizes, image_token_id=IMAGE)


NEWER: dict[str, Family] = {
    "qwen3_5": qwen3_5_family(LINEAR, LINEAR, LINEAR, FULL, linears=3 * 8 + 7),
    "qwen3_5_first_full": qwen3_5_family(FULL, LINEAR, LINEAR, FULL, linears=2 * 8 + 2 * 7),
    "lfm2_vl": Family("Lfm2VlForConditionalGeneration", lfm2_vl, {"image": packed_patches}, linears=3 * 5 + 7),
    "gemma4": Family(
        "Gemma4ForConditionalGeneration", gemma4, {"image": placed_patches}, QWEN_TYPES, linears=2 * 7 + 2 * 6
    ),
    "gemma4_shared": Family(
        "Gemma4ForConditionalGeneration", gemma4_shared, {"image": placed_patches}, QWEN_TYPES, linears=4 * 9 - 2 * 2
    ),
    "phi4_multimodal": Family("Phi4MultimodalForCausalLM", phi4, {"image": crops}, linears=4 * 4),
    "blip2": Family("Blip2ForConditionalGeneration", blip2, {"image": pixels(1, 4)}, optional=False, linears=4 * 6),
    "llama4_dense": Family("Llama4ForCausalLM", llama4),
    "mixtral": Family("MixtralForCausalLM", mixtral, linears=4 * 4, exclude=DENSE_EXPERTS),
    "qwen3_vl_moe": Family(
        "Qwen3VLMoeForConditionalGeneration",
        qwen3_vl_moe,
        {"image": QWEN_GRIDS["image"]},
        QWEN_TYPES,
        linears=4 * 4,
        tolerance=2e-6,
        exclude=DENSE_EXPERTS,
    ),
    "qwen3_5_moe": Family(
        "Qwen3_5MoeForConditionalGeneration",
        qwen3_5_moe,
        {"image": QWEN_GRIDS["image"]},
        QWEN_TYPES,
        linears=3 * 8 + 7,
        exclude=DENSE_EXPERTS,
    ),
    "gemma4_moe": Family(
        "Gemma4ForConditionalGeneration",
        gemma4_moe,
        {"image": placed_patches},
        QWEN_TYPES,
        linears=2 * 7 + 2 * 6,
        exclude=DENSE_EXPERTS,
    ),
    "llama4_moe": Family("Llama4ForCausalLM", llama4_moe, exclude=DENSE_EXPERTS),
    "latent_attention": Family("DeepseekV3ForCausalLM", latent_attention, linears=4 * 8),
}
