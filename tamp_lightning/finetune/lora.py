"""LoRA of a pruned model: the low-rank update is masked in training as well as in the merge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

ADAPTER = "default"
BASE = "base_layer"


class MaskedLora(Linear):
    """PEFT's LoRA linear whose weight in training is W + mask * (alpha/rank) B A.

    PEFT's own forward adds B A x, an update of the pruned weights too, and a merge that zeroes them would then give
    another function than the one that was trained. Here both are the same sum: `get_delta_weight`, which PEFT's merge
    adds to W, is masked, and so is what the forward pass computes with. The price is a weight-sized product per linear
    and step. The sum is made in float32 whatever autocast says.
    """

    keep: Tensor | None = None
    """BoolTensor of the weight's shape, True = kept; None = the linear is dense."""

    def get_delta_weight(self, adapter: str) -> Tensor:
        """The masked update, in the dtype of the adapter."""
        delta = super().get_delta_weight(adapter)
        return delta if self.keep is None else delta.masked_fill(~self.keep.to(delta.device), 0)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The linear with W + masked update."""
        base = self.get_base_layer()
        assert isinstance(base, nn.Linear)
        if self.disable_adapters or self.merged:
            return base(x)
        with torch.autocast(x.device.type, enabled=False):
            weight = base.weight + self.get_delta_weight(ADAPTER)
        return F.linear(x, weight, base.bias)


def add_lora(
    model: PreTrainedModel, linears: Iterable[str], masks: Mapping[str, Tensor], rank: int, alpha: float
) -> LoraModel:
    """Put a masked update after every one of `linears` in place; nothing but the updates is trainable then.

    Args:
        model: what is trained.
        linears: full names.
        masks: full name -> mask; a linear without one gets an update without one.
        rank: of the updates.
        alpha: the updates are multiplied by alpha / rank.
    """
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=list(linears))  # type: ignore[arg-type]
    config._register_custom_module({nn.Linear: MaskedLora})
    tuner = LoraModel(model, {ADAPTER: config}, ADAPTER)
    for name, mask in masks.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, MaskedLora)
        layer.keep = mask
    return tuner


def merge_lora(tuner: LoraModel) -> None:
    """Add the masked updates to the weights and take PEFT's layers out of the model again."""
    tuner.merge_and_unload()
