"""What the headers of a checkpoint say of its experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from tamp_lightning.compat.experts import are_experts, choice_count, expert_count

CHOSEN = ("num_experts_per_tok", "moe_k", "moe_topk", "top_k_experts")
"""What configs call the number of experts that a token is sent to."""


@dataclass(frozen=True)
class ExpertFacts:
    """Experts of a model."""

    layers: int
    """Layers of experts."""
    experts: int
    """Experts of a layer; the most where layers differ."""
    chosen: int
    """Experts that a token is sent to."""
    weights: int
    """Parameters of all of them."""
    active: int
    """Parameters of those that a token is sent to."""
    choices: int
    """What a router chooses among: experts, and those that hand tokens on as they are."""


def expert_facts(model: PreTrainedModel, blocks: Sequence[nn.Module]) -> ExpertFacts | None:
    """Of the experts in the decoder's blocks; None if there are none, or it is not known how many a token gets."""
    config = model.config.get_text_config()
    chosen = next((int(n) for name in CHOSEN if (n := getattr(config, name, None))), None)
    layers = [module for block in blocks for module in block.modules() if are_experts(module)]
    if not layers or chosen is None:
        return None
    sizes = [sum(parameter.numel() for parameter in layer.parameters()) for layer in layers]
    counts = [expert_count(layer) for layer in layers]
    choices = [choice_count(layer) for layer in layers]
    active = sum(size * chosen // count for size, count in zip(sizes, choices, strict=True))
    return ExpertFacts(len(layers), max(counts), chosen, sum(sizes), active, max(choices))
