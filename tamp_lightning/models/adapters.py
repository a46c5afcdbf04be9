"""Families that depart from transformers' conventions, and the base class to add one: see docs/models.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tamp_lightning.checkpoint.adapter import ADAPTERS, AUDIO, IMAGE, TEXT, VIDEO, Adapter
from tamp_lightning.errors import InputError

__all__ = ["ADAPTERS", "AUDIO", "IMAGE", "TEXT", "VIDEO", "Adapter"]


@ADAPTERS.register("mllama")
class MllamaAdapter(Adapter):
    """Llama 3.2 Vision: pictures enter through cross-attention, not as tokens of the sequence."""

    self_attention = False
    towers = False  # tiles are padded, and in each the patches to a multiple of eight

    def dense(self, model: PreTrainedModel) -> Sequence[str]:
        """Keys and values of cross-attention are made of picture tiles."""
        return (r"^cross_attn\.[kv]_proj$",)


@ADAPTERS.register("qwen2_audio")
class Qwen2AudioAdapter(Adapter):
    """Qwen2-Audio: every sound is padded to 30 seconds, and tower and projector run on all of them."""

    def tower_tokens(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """Steps after the convolutions, and pairs of them after the pooling, of what is not padding."""
        if "feature_attention_mask" not in batch:
            return ()
        mask = batch["feature_attention_mask"]
        # the encoder's own arithmetic: convolutions halve the frames, a pool halves the steps
        steps = ((mask.sum(-1) - 1) // 2 + 1, (mask.shape[-1] - 1) // 2 + 1)
        pairs = ((steps[0] - 2) // 2 + 1, (steps[1] - 2) // 2 + 1)
        return [torch.arange(length, device=mask.device) < real[:, None] for real, length in (steps, pairs)]


@ADAPTERS.register("qwen2_5_omni_thinker")
@ADAPTERS.register("video_llama_3")
class PackedAdapter(Adapter):
    """Families that drop padding before any linear of a tower, or after all of them."""

    def tower_tokens(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """Every token that a linear reads is real, whatever the masks."""
        return ()


@ADAPTERS.register("idefics3")
@ADAPTERS.register("smolvlm")
class Idefics3Adapter(Adapter):
    """Idefics3 and SmolVLM: pictures that only fill up a row of the batch are all zero, and dropped."""

    def tower_tokens(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """Every token of the pictures that are left is real, if none of them is padded itself."""
        mask, pixels = batch.get("pixel_attention_mask"), batch.get("pixel_values")
        if mask is None or pixels is None:
            return ()
        shown = pixels.flatten(2).any(-1)
        return super().tower_tokens(model, {**batch, "pixel_attention_mask": mask[shown]})


@ADAPTERS.register("gemma4")
@ADAPTERS.register("gemma4_unified")
class Gemma4Adapter(Adapter):
    """Gemma 4: patches that only fill up a picture are told by their position, which is -1."""

    def tower_tokens(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """Every token is real, if no picture is filled up."""
        for key in ("image_position_ids", "video_position_ids"):
            if key in batch and bool((batch[key] < 0).any()):
                raise InputError(
                    f"{key} marks padding, and which tokens it becomes in the towers of {type(model).__name__} is not "
                    "known: leave towers.sparsity 0, or calibrate with pictures of one size"
                )
        return super().tower_tokens(model, batch)


@ADAPTERS.register("llama4")
@ADAPTERS.register("llama4_text")
class Llama4Adapter(Adapter):
    """Llama 4: what experts put out is added in place to what the shared expert puts out."""

    in_place = (r"shared_expert\.down_proj$",)


@ADAPTERS.register("ernie4_5_vl_moe")
class ErnieAdapter(Adapter):
    """ERNIE 4.5 VL: one layer of experts is for text, another for pictures and videos."""

    def routed(self, layer: str, kwargs: Mapping[str, Any]) -> Tensor | None:
        """The tokens of the layer's modality; all where the batch is text alone."""
        types = kwargs.get("moe_mm_token_type_ids")
        if types is None or not bool(types.any()):
            return None
        return types.bool() if "vision_moe" in layer else ~types.bool()
