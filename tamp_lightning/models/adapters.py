"""Families that depart from transformers' conventions, and the base class to add one: see docs/models.md."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from tamp_lightning.stream.adapter import AUDIO, IMAGE, TEXT, VIDEO, Adapter, register

__all__ = ["AUDIO", "IMAGE", "TEXT", "VIDEO", "Adapter", "register"]


class MllamaAdapter(Adapter):
    """Llama 3.2 Vision: pictures enter through cross-attention, not as tokens of the sequence."""

    self_attention = False

    def dense(self, model: PreTrainedModel) -> Sequence[str]:
        """Keys and values of cross-attention are made of picture tiles."""
        return (r"^cross_attn\.[kv]_proj$",)


register("mllama", MllamaAdapter())
