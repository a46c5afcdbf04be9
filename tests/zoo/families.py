"""One tiny random model per family, and samples as its processor would give them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers as tf
from torch import Tensor
from transformers import PreTrainedModel

IMAGE, VIDEO, AUDIO = 90, 91, 92
KINDS = {"image": IMAGE, "video": VIDEO, "audio": AUDIO}
NUMBERS = {"image": 1, "video": 2, "audio": 3}
MARKS = {"image": (80, 81), "video": (80, 81), "audio": (83, 84)}

TEXT: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "initializer_range": 0.2,
}  # fmt: skip
TOWER: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8,
    "patch_size": 4,
}  # fmt: skip
MROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
SLIDING = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]

Media = Callable[[torch.Generator], tuple[int, dict[str, Tensor]]]
"""Random media of one sample: how many placeholders stand for it, and the model's inputs."""


@dataclass(frozen=True)
class Family:
    """How to make a model of a family, and what it can see and hear."""

    model: str
    config: Callable[[], Any]
    media: dict[str, Media] = field(default_factory=dict)
    text: Callable[[Tensor, Tensor], dict[str, Tensor]] | None = None
    """Further inputs made of token ids and modalities [1,n]."""
    method: dict[str, Any] = field(default_factory=dict)
    """TAMP, or a method without attention where the decoder cannot give it."""
    optional: bool = True
    """Whether samples may have no media."""
    linears: int = 28
    """Prunable linears."""
    exclude: tuple[str, ...] = ()
    """What cannot be pruned."""
    tolerance: float = 0.0
    """How far logits may be from themselves after saving and loading, as they are for the dense model too."""

    def make(self, seed: int = 0) -> PreTrainedModel:
        """A random model; no weight is at a value that would hide an error."""
        torch.manual_seed(seed)
        model = getattr(tf, self.model)(self.config()).eval()
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(value, std=0.2)
        return model

    def sample(self, kinds: tuple[str, ...], length: int, seed: int) -> dict[str, Tensor]:
        """One sample of `length` text tokens with media after the third, as a batch of one."""
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(3, 80, (length,), generator=generator).tolist()
        inputs: dict[str, Tensor] = {}
        types = [0] * length
        for kind in kinds:
            count, given = self.media[kind](generator)
            start, end = MARKS[kind]
            ids[3:3], types[3:3] = [start, *[KINDS[kind]] * count, end], [0, *[NUMBERS[kind]] * count, 0]
            inputs |= given
        inputs |= {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.int64)}
        return inputs | (self.text(inputs["input_ids"], torch.tensor([types])) if self.text else {})

    def batches(self) -> list[dict[str, Tensor]]:
        """Text alone, every medium alone, all media together, and two samples of unequal length in one batch."""
        kinds = [
            *([()] if self.optional else []),
            *((kind,) for kind in self.media),
            *([tuple(self.media)] if len(self.media) > 1 else []),
        ]
        alone = [self.sample(kind, 12 + k, k) for k, kind in enumerate(kinds)]
        return [*alone, collate([self.sample(kinds[-1], length, length) for length in (20, 14)])]


def collate(samples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One right-padded batch: what belongs to tokens is padded, what belongs to media is strung together."""
    longest = max(s["input_ids"].shape[1] for s in samples)

    def padded(value: Tensor) -> Tensor:
        rest = (0, 0) * (value.ndim - 2)
        return torch.nn.functional.pad(value, (*rest, 0, longest - value.shape[1]))

    per_token = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "cross_attention_mask"}
    return {key: torch.cat([padded(s[key]) if key in per_token else s[key] for s in samples]) for key in samples[0]}


def text(kind: type, **changes: Any) -> Any:
    return kind(**(TEXT | changes))


def clip() -> Any:
    return tf.CLIPVisionConfig(**TOWER, projection_dim=16)


def siglip(**changes: Any) -> Any:
    return tf.SiglipVisionConfig(**(TOWER | {"vision_use_head": False} | changes))


def pixels(count: int, tokens: int, name: str = "pixel_values", shape: tuple[int, ...] = (3, 8, 8)) -> Media:
    lead = (count,) if count else ()
    return lambda g: (tokens, {name: torch.randn(*lead, *shape, generator=g)})


def with_sizes(media: Media) -> Media:
    def make(generator: torch.Generator) -> tuple[int, dict[str, Tensor]]:
        count, given = media(generator)
        return count, {**given, "image_sizes": torch.tensor([given["pixel_values"].shape[-2:]])}

    return make


def grid(kind: str, patch: int, thw: tuple[int, int, int], merged: int, **more: Any) -> Media:
    """Flattened patches with their grid, as Qwen-VL has them."""
    name = "pixel_values" if kind == "image" else "pixel_values_videos"
    patches = thw[0] * thw[1] * thw[2]

    def make(generator: torch.Generator) -> tuple[int, dict[str, Tensor]]:
        given = {name: torch.randn(patches, patch, generator=generator), f"{kind}_grid_thw": torch.tensor([thw])}
        return merged, given | {k: torch.tensor(v) for k, v in more.items()}

    return make


def mel(frames: int, tokens: int, length: int, bins: int = 16) -> Media:
    def make(generator: torch.Generator) -> tuple[int, dict[str, Tensor]]:
        mask = (torch.arange(frames) < length).long()[None]
        return tokens, {
            "input_features": torch.randn(1, bins, frames, generator=generator),
            "feature_attention_mask": mask,
        }

    return make


def next_pictures() -> Media:
    """A base tile of four patches, the same as grid, a newline after each of its two rows."""
    return with_sizes(pixels(1, 10, shape=(2, 3, 8, 8)))


def llava_next(kind: type, **changes: Any) -> Callable[[], Any]:
    return lambda: tf.LlavaNextConfig(
        vision_config=clip(), text_config=text(kind, **changes), image_token_index=IMAGE, image_grid_pinpoints=[[8, 8]]
    )


def qwen_vl(kind: type, vision: dict[str, Any]) -> Callable[[], Any]:
    return lambda: kind(
        vision_config=vision,
        text_config={**TEXT, "rope_parameters": MROPE},
        image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=80, vision_end_token_id=81,
    )  # fmt: skip


QWEN_TYPES: Callable[[Tensor, Tensor], dict[str, Tensor]] = lambda ids, types: {"mm_token_type_ids": types}  # noqa: E731
QWEN_GRIDS = {
    "image": grid("image", 3 * 2 * 4 * 4, (1, 4, 4), 4),
    "video": grid("video", 3 * 2 * 4 * 4, (2, 4, 4), 8),
}
QWEN2_VISION = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4}
QWEN25_VISION = {
    "depth": 2, "hidden_size": 16, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 24, "patch_size": 4,
    "window_size": 16, "fullatt_block_indexes": [1],
}  # fmt: skip
QWEN3_VISION = {
    "depth": 3, "hidden_size": 16, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 24, "patch_size": 4,
    "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1],
}  # fmt: skip


WANDA = {"tokens": "all", "allocation": "uniform"}


def mllama() -> Any:
    vision = {
        "hidden_size": 16, "attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_global_layers": 1, "image_size": 8, "patch_size": 4, "vision_output_dim": 32,
        "intermediate_layers_indices": [0], "max_num_tiles": 2, "supported_aspect_ratios": [[1, 1], [1, 2]],
    }  # fmt: skip
    text_config = {
        **TEXT,
        "cross_attention_layers": [1, 3],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    }
    return tf.MllamaConfig(vision_config=vision, text_config=text_config, image_token_index=IMAGE)


def tiles(generator: torch.Generator) -> tuple[int, dict[str, Tensor]]:
    """One picture in one of two tiles."""
    return 1, {
        "pixel_values": torch.randn(1, 1, 2, 3, 8, 8, generator=generator),
        "aspect_ratio_ids": torch.tensor([[1]]),
        "aspect_ratio_mask": torch.tensor([[[1, 0]]]),
    }


def omni() -> Any:
    audio = {
        "num_mel_bins": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "d_model": 16,
        "max_source_positions": 64, "n_window": 20, "output_dim": 32,
    }  # fmt: skip
    return tf.Qwen2_5OmniThinkerConfig(
        audio_config=audio,
        vision_config={**QWEN25_VISION, "out_hidden_size": 32},
        text_config={**TEXT, "rope_parameters": MROPE},
        audio_token_index=AUDIO, image_token_index=IMAGE, video_token_index=VIDEO,
        audio_start_token_id=83, audio_end_token_id=84, user_token_id=85, vision_start_token_id=80,
        vision_end_token_id=81,
    )  # fmt: skip


FAMILIES: dict[str, Family] = {
    "llama": Family("LlamaForCausalLM", lambda: text(tf.LlamaConfig)),
    "qwen2": Family("Qwen2ForCausalLM", lambda: text(tf.Qwen2Config, tie_word_embeddings=True)),
    "qwen2_sliding": Family(
        "Qwen2ForCausalLM",
        lambda: text(tf.Qwen2Config, use_sliding_window=True, sliding_window=6, max_window_layers=2),
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM", lambda: text(tf.Gemma3TextConfig, head_dim=8, sliding_window=6, layer_types=SLIDING)
    ),
    "llava": Family(
        "LlavaForConditionalGeneration",
        lambda: tf.LlavaConfig(
            vision_config=clip(), text_config=text(tf.LlamaConfig), image_token_index=IMAGE, image_seq_length=4
        ),
        {"image": pixels(1, 4)},
    ),
    "pixtral": Family(
        "LlavaForConditionalGeneration",
        lambda: tf.LlavaConfig(
            vision_config=tf.PixtralVisionConfig(**TOWER, head_dim=8), text_config=text(tf.MistralConfig),
            image_token_index=IMAGE, vision_feature_select_strategy="full", vision_feature_layer=-1,
        ),
        {"image": with_sizes(pixels(1, 4))},
    ),
    "llava_next_llama": Family(
        "LlavaNextForConditionalGeneration", llava_next(tf.LlamaConfig), {"image": next_pictures()}
    ),
    "llava_next_mistral": Family(
        "LlavaNextForConditionalGeneration", llava_next(tf.MistralConfig, sliding_window=8), {"image": next_pictures()}
    ),
    "llava_next_qwen2": Family(
        "LlavaNextForConditionalGeneration", llava_next(tf.Qwen2Config), {"image": next_pictures()}
    ),
    "llava_next_video": Family(
        "LlavaNextVideoForConditionalGeneration",
        lambda: tf.LlavaNextVideoConfig(
            vision_config=clip(), text_config=text(tf.LlamaConfig), image_token_index=IMAGE, video_token_index=VIDEO,
            image_grid_pinpoints=[[8, 8]], spatial_pool_stride=2,
        ),
        {"image": next_pictures(), "video": pixels(1, 3, "pixel_values_videos", (3, 3, 8, 8))},
    ),
    "llava_onevision": Family(
        "LlavaOnevisionForConditionalGeneration",
        lambda: tf.LlavaOnevisionConfig(
            vision_config=siglip(), text_config=text(tf.Qwen2Config), image_token_index=IMAGE, video_token_index=VIDEO,
            image_grid_pinpoints=[[8, 8]],
        ),
        {"image": next_pictures(), "video": pixels(1, 4, "pixel_values_videos", (3, 3, 8, 8))},
    ),
    "qwen2_vl": Family(
        "Qwen2VLForConditionalGeneration", qwen_vl(tf.Qwen2VLConfig, QWEN2_VISION), QWEN_GRIDS, QWEN_TYPES
    ),
    "qwen2_5_vl": Family(
        "Qwen2_5_VLForConditionalGeneration", qwen_vl(tf.Qwen2_5_VLConfig, QWEN25_VISION), QWEN_GRIDS, QWEN_TYPES
    ),
    "qwen3_vl": Family(
        "Qwen3VLForConditionalGeneration",
        qwen_vl(tf.Qwen3VLConfig, QWEN3_VISION),
        # Its processor sets a time stamp between frames, so a run of placeholders is one frame.
        QWEN_GRIDS | {"video": grid("video", 96, (1, 4, 4), 4)},
        QWEN_TYPES,
    ),
    "internvl": Family(
        "InternVLForConditionalGeneration",
        lambda: tf.InternVLConfig(
            vision_config={**TOWER, "image_size": [8, 8], "patch_size": [4, 4]}, text_config=text(tf.Qwen2Config),
            image_token_id=IMAGE, image_seq_length=1,
        ),
        {"image": pixels(2, 2)},
    ),
    "idefics3": Family(
        "Idefics3ForConditionalGeneration",
        lambda: tf.Idefics3Config(
            vision_config=TOWER, text_config=text(tf.LlamaConfig), image_token_id=IMAGE, scale_factor=2
        ),
        {"image": pixels(1, 2, shape=(2, 3, 8, 8))},
    ),
    "smolvlm": Family(
        "SmolVLMForConditionalGeneration",
        lambda: tf.SmolVLMConfig(
            vision_config=TOWER, text_config=text(tf.LlamaConfig), image_token_id=IMAGE, scale_factor=2
        ),
        {"image": pixels(1, 2, shape=(2, 3, 8, 8))},
    ),
    "gemma3": Family(
        "Gemma3ForConditionalGeneration",
        lambda: tf.Gemma3Config(
            vision_config=siglip(),
            text_config=text(tf.Gemma3TextConfig, head_dim=8, sliding_window=6, layer_types=SLIDING),
            image_token_index=IMAGE, mm_tokens_per_image=4, boi_token_index=82, eoi_token_index=83,
        ),
        {"image": pixels(1, 4)},
        lambda ids, types: {"token_type_ids": (types == 1).long()},
    ),
    "mistral3": Family(
        "Mistral3ForConditionalGeneration",
        lambda: tf.Mistral3Config(
            vision_config=tf.PixtralVisionConfig(**(TOWER | {"image_size": 16}), head_dim=8),
            text_config=text(tf.MistralConfig), image_token_index=IMAGE, spatial_merge_size=2, vision_feature_layer=-1,
        ),
        {"image": with_sizes(pixels(1, 4, shape=(3, 16, 16)))},
    ),
    "paligemma": Family(
        "PaliGemmaForConditionalGeneration",
        lambda: tf.PaliGemmaConfig(
            vision_config=siglip(projection_dim=32), text_config=text(tf.GemmaConfig, head_dim=8),
            image_token_index=IMAGE, projection_dim=32,
        ),
        {"image": pixels(1, 4)},
        # The answer is what is predicted: the last four tokens are causal, all before see each other.
        lambda ids, types: {"token_type_ids": (torch.arange(ids.shape[1]) >= ids.shape[1] - 4).long()[None]},
    ),
    "paligemma2": Family(
        "PaliGemmaForConditionalGeneration",
        lambda: tf.PaliGemmaConfig(
            vision_config=siglip(projection_dim=32),
            text_config=text(
                tf.Gemma2Config, head_dim=8, sliding_window=6, layer_types=SLIDING, query_pre_attn_scalar=8,
                attn_logit_softcapping=None,
            ),
            image_token_index=IMAGE, projection_dim=32,
        ),
        {"image": pixels(1, 4)},
        lambda ids, types: {"token_type_ids": (torch.arange(ids.shape[1]) >= ids.shape[1] - 4).long()[None]},
        WANDA,
    ),
    "mllama": Family(
        "MllamaForConditionalGeneration",
        mllama,
        {"image": tiles},
        lambda ids, types: {"cross_attention_mask": torch.ones(*ids.shape, 1, 2).long()},
        WANDA, optional=False, linears=2 * 7 + 2 * 5,
    ),
    "qwen2_audio": Family(
        "Qwen2AudioForConditionalGeneration",
        lambda: tf.Qwen2AudioConfig(
            audio_config={
                "num_mel_bins": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24,
                "d_model": 16, "max_source_positions": 16,
            },
            text_config=text(tf.Qwen2Config), audio_token_index=AUDIO,
        ),
        {"audio": mel(32, 5, 20)},
    ),
    "qwen2_5_omni": Family(
        "Qwen2_5OmniThinkerForConditionalGeneration",
        omni,
        {"audio": mel(32, 5, 20), "video": grid("video", 96, (2, 4, 4), 8, video_second_per_grid=[1.0])},
    ),
    "video_llama_3": Family(
        "VideoLlama3ForConditionalGeneration",
        lambda: tf.VideoLlama3Config(
            vision_config={k: v for k, v in TOWER.items() if k != "image_size"}, text_config=text(tf.Qwen2Config),
            image_token_id=IMAGE, video_token_id=VIDEO,
        ),
        {
            "image": grid("image", 48, (1, 4, 4), 16, image_merge_sizes=[1]),
            "video": grid("video", 48, (2, 4, 4), 8, video_merge_sizes=[2], video_compression_mask=[True] * 8),
        },
    ),
}  # fmt: skip
