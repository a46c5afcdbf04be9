"""Configuration of VideoLLaMA2: the flat official config.json, with the tower sizes it leaves out."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig, Qwen2Config, SiglipVisionConfig

from tamp_lightning.compat.modeling import SubConfigSpec
from tamp_lightning.errors import InputError

SIGLIP_SO400M: dict[str, Any] = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
QWEN2_7B: dict[str, Any] = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "rope_theta": 1e6,
}
CONNECTOR_PADDING = {"stc_connector_v35": 0, "stc_connector": 1}
# Heads with these do more than multiply by one matrix.
_HEAD_EXTRAS = ("final_logit_softcapping", "logit_scale", "logits_scaling")

_COMMON = {field.name for field in dataclasses.fields(PreTrainedConfig)} | {"tie_word_embeddings"}


class BeatsConfig(PreTrainedConfig):
    """Sizes of the BEATs audio encoder; the defaults are BEATs_iter3+ AS2M, field names are the official ones."""

    model_type = "videollama2_beats"
    base_config_key = "audio_config"

    input_patch_size: int = 16
    num_mel_bins: int = 128
    embed_dim: int = 512
    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    conv_pos: int = 128
    conv_pos_groups: int = 16
    num_buckets: int = 320
    max_distance: int = 800
    predictor_class: int = 527

    def tokens(self, frames: int) -> int:
        """Number of tokens for ``frames`` filter-bank frames; frames that fill no patch are dropped."""
        return (frames // self.input_patch_size) * (self.num_mel_bins // self.input_patch_size)


class Videollama2Config(PreTrainedConfig):
    """Configuration of VideoLLaMA2.

    The official file is flat: the fields of Qwen2 stand beside the ``mm_*`` ones and nothing is said about the
    towers. It is read and written so. ``text_config`` is given only for another language model than Qwen2,
    ``vision_config`` and ``audio_config`` only for other towers than SigLIP so400m-384 and BEATs iter3+ (a partial
    one changes just what it names). A tower exists where ``mm_vision_tower`` or ``mm_audio_tower`` is set.

    The placeholder ids default to the first ids after Qwen2's tokenizer; they need no row in the embedding.

    Raises:
        InputError: an unknown connector, sizes that do not fit each other, or a language model whose head is not
            one matrix.
    """

    model_type = "videollama2_qwen2"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2"),
        "vision_config": SubConfigSpec(config_class=SiglipVisionConfig, init_kwargs=SIGLIP_SO400M),
        "audio_config": SubConfigSpec(config_class=BeatsConfig),
    }

    text_config: Any = None  # these three: given as a dict, a configuration afterwards
    vision_config: Any = None
    audio_config: Any = None
    mm_vision_tower: str | None = None
    mm_vision_select_layer: int = -2
    mm_vision_select_feature: str = "patch"
    mm_projector_type: str = "stc_connector_v35"
    mm_hidden_size: int | None = None
    mm_connector_size: int | None = None  # inner width of the connector; officially always the language model's
    mm_audio_tower: str | None = None
    mm_projector_a_type: str = "mlp2x_gelu"
    mm_hidden_size_a: int | None = None
    hidden_size_a: int | None = None
    num_frames: int = 8  # what the official code falls back to; VideoLLaMA2.1 sets 16
    tie_word_embeddings: bool = False
    image_token_id: int = 151646
    video_token_id: int = 151647
    audio_token_id: int = 151648

    def __post_init__(self, **kwargs: Any) -> None:
        if self.text_config is None:
            flat = {key: kwargs.pop(key) for key in _flat_names() & set(kwargs)}
            self.text_config = Qwen2Config(**flat, tie_word_embeddings=self.tie_word_embeddings)
        if isinstance(self.vision_config, dict):
            self.vision_config = SIGLIP_SO400M | self.vision_config
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))
        self._check_kinds()
        self._check_sizes()

    @classmethod
    def av_7b(cls, **changes: Any) -> Videollama2Config:
        """The shape of VideoLLaMA2.1-7B-AV, as its training script and code give it."""
        fields: dict[str, Any] = QWEN2_7B | {
            "mm_vision_tower": "google/siglip-so400m-patch14-384",
            "mm_audio_tower": "audio_tower.bin",
            "num_frames": 16,
        }
        return cls(**(fields | changes))

    def video_tokens(self, frames: int | None = None) -> int:
        """Number of tokens the connector gives for ``frames`` frames (None = ``num_frames``)."""
        side = self.vision_config.image_size // self.vision_config.patch_size
        padding = CONNECTOR_PADDING[self.mm_projector_type]

        def halved(size: int) -> int:
            return (size + 2 * padding) // 2

        return halved(frames or self.num_frames) * halved(side) ** 2

    def to_dict(self) -> dict[str, Any]:
        """The configuration as a dictionary, flat where the official file is."""
        output = super().to_dict()
        if isinstance(self.text_config, Qwen2Config):
            text = output.pop("text_config")
            output |= {key: text[key] for key in sorted(_flat_names() & set(text))}
            output["rope_theta"] = text["rope_parameters"]["rope_theta"]  # older code reads it here
        for name, default in (("vision_config", SiglipVisionConfig(**SIGLIP_SO400M)), ("audio_config", BeatsConfig())):
            fields = default.to_dict()
            if all(output[name].get(key) == fields[key] for key in set(fields) - _COMMON):
                del output[name]
        if self.mm_connector_size is None:
            del output["mm_connector_size"]
        return output

    def to_diff_dict(self) -> dict[str, Any]:
        """What is written to config.json: all but what every configuration has; the towers' sizes in full."""
        common = PreTrainedConfig().to_dict()
        kept = ("model_type", "transformers_version")

        def slim(fields: dict[str, Any]) -> dict[str, Any]:
            return {
                key: slim(value) if key.endswith("_config") and isinstance(value, dict) else value
                for key, value in fields.items()
                if key in kept or (key != "_name_or_path" and (key not in common or common[key] != value))
            }

        return slim(self.to_dict())

    def _check_kinds(self) -> None:
        for name, value, allowed in (
            ("mm_projector_type", self.mm_projector_type, tuple(CONNECTOR_PADDING)),
            ("mm_projector_a_type", self.mm_projector_a_type, ("mlp2x_gelu",)),
            ("mm_vision_select_feature", self.mm_vision_select_feature, ("patch",)),
        ):
            if value not in allowed:
                raise InputError(f"{name} is {value!r}, but only {' and '.join(allowed)} can be used")
        if self.mm_vision_tower is not None and "siglip" not in self.mm_vision_tower:
            raise InputError(f"mm_vision_tower is {self.mm_vision_tower!r}, but only SigLIP towers can be used")
        extra = next((e for e in _HEAD_EXTRAS if getattr(self.text_config, e, None) not in (None, 1, 1.0)), None)
        if extra:
            raise InputError(f"text_config has {extra}: only language models whose head is one matrix can be used")

    def _check_sizes(self) -> None:
        for name, part, width in (
            ("mm_hidden_size", "vision tower", self.vision_config.hidden_size),
            ("mm_hidden_size_a", "audio tower", self.audio_config.encoder_embed_dim),
            ("hidden_size_a", "language model", self.text_config.hidden_size),
        ):
            tower = self.mm_vision_tower if name == "mm_hidden_size" else self.mm_audio_tower
            given = getattr(self, name)
            if tower is not None and given not in (None, width):
                raise InputError(f"{name} is {given}, but the {part} has width {width}")
            setattr(self, name, width if tower is not None else given)


def _flat_names() -> set[str]:
    """Fields of Qwen2 that stand at the top of the official file."""
    return {field.name for field in dataclasses.fields(Qwen2Config)} - _COMMON | {"rope_theta", "rope_scaling"}
