"""What the headers of a checkpoint say: its parts, what of it can be pruned, and with how much memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from tamp_lightning.checkpoint.facts import AUDIO, IMAGE, VIDEO, ModelFacts, tower_linears
from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.tasks.forecast import Shape, shape_of
from tamp_lightning.tasks.inspect_experts import ExpertFacts, expert_facts

NAMES = {IMAGE: "image", VIDEO: "video", AUDIO: "audio"}


@dataclass(frozen=True)
class LinearGroup:
    """Linears of one name and shape, one per block, or matrices of experts, which have a star for their number."""

    name: str
    shape: tuple[int, ...]
    count: int

    @property
    def weights(self) -> int:
        """Weights of all of them."""
        return self.count * math.prod(self.shape)


@dataclass(frozen=True)
class Inspection:
    """What the headers of a checkpoint say."""

    folder: Path
    model: str
    """Class of the model."""
    stored: dict[str, int]
    """Tensors by dtype on disk."""
    disk: int
    """Bytes of its weights."""
    parts: dict[str, int]
    """Parameters of every part outside of the blocks, by module name."""
    refusal: str | None = None
    """Why it would not be pruned by any method; then what follows is empty."""
    method_refusal: str | None = None
    """Why it would not be pruned by the method asked about."""
    notes: tuple[str, ...] = ()
    """What the method does otherwise here than elsewhere."""
    blocks: str = ""
    kinds: dict[str, int] | None = None
    """Decoder blocks by kind."""
    groups: tuple[LinearGroup, ...] = ()
    """What would be pruned."""
    dense: tuple[str, ...] = ()
    """Linears of the blocks that would stay dense."""
    block_parameters: int = 0
    modalities: tuple[str, ...] = ()
    fixed_memory: int = 0
    """Bytes of embeddings, towers, head and two blocks: the current one and its predecessor."""
    token_memory: int = 0
    """Bytes that a calibration token takes between two blocks."""
    towers: int = 0
    """Linears of towers and projector, which are pruned on request."""
    tower_weights: int = 0
    """Weights of all of them."""
    experts: ExpertFacts | None = None
    """None where there are none."""
    shape: Shape | None = None
    """What a forecast rests on."""


def described(model: PreTrainedModel, facts: ModelFacts) -> dict[str, Any]:
    """What there is to prune, and with how much memory."""
    blocks = list(model.get_submodule(facts.blocks).children())
    sizes = [sum(p.numel() for p in block.parameters()) for block in blocks]
    width = max(p.element_size() for p in model.parameters())
    rest = sum(parts(model, facts.blocks).values())
    modalities = {NAMES[m] for m in facts.modality_ids.values()}
    return {
        "blocks": facts.blocks,
        "kinds": _kinds(model, facts),
        "groups": _groups(facts),
        "dense": _dense(blocks, facts),
        "block_parameters": sum(sizes),
        "modalities": ("text", *(name for name in NAMES.values() if name in modalities)),
        "fixed_memory": width * (rest + sum(sorted(sizes)[-2:])),
        "token_memory": width * model.config.get_text_config().hidden_size,
        "shape": shape_of(model, facts),
        **_towers(model, facts),
        "experts": expert_facts(model, blocks),
    }


def _towers(model: PreTrainedModel, facts: ModelFacts) -> dict[str, int]:
    names = tower_linears(model, facts.blocks)
    return {"towers": len(names), "tower_weights": sum(model.get_parameter(f"{n}.weight").numel() for n in names)}


def _kinds(model: PreTrainedModel, facts: ModelFacts) -> dict[str, int]:
    decoder = model.get_submodule(facts.blocks.rpartition(".")[0])
    types = getattr(decoder.config, "layer_types", None)
    if types and len(types) == len(facts.linears) and len(set(types)) > 1:
        return dict(Counter(types))
    return dict(Counter(type(block).__name__ for block in model.get_submodule(facts.blocks).children()))


def _groups(facts: ModelFacts) -> tuple[LinearGroup, ...]:
    found = Counter((kind_of(linear), linear.shape) for linear in facts.all_linears)
    return tuple(LinearGroup(name, shape, count) for (name, shape), count in found.items())


def kind_of(linear: Linear) -> str:
    """Name of a linear in its block, that of a matrix of experts with a star for the expert."""
    piece = linear.piece
    return linear.name if piece is None else f"{piece.layer}.*.{linear.name.rpartition('.')[2]}"


def _dense(blocks: Sequence[torch.nn.Module], facts: ModelFacts) -> tuple[str, ...]:
    left = {
        name: None
        for block, linears in zip(blocks, facts.linears, strict=True)
        for name, module in block.named_modules()
        if isinstance(module, torch.nn.Linear) and name not in {linear.name for linear in linears}
    }
    return tuple(left)


def parts(model: PreTrainedModel, blocks: str | None) -> dict[str, int]:
    """Parameters by the module that holds them, one name deeper in the decoder; tied ones once, blocks left out."""
    decoder = "" if blocks is None else blocks.rpartition(".")[0]
    tied = model.all_tied_weights_keys or {}
    found: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        if name in tied or (blocks is not None and name.startswith(f"{blocks}.")):
            continue
        depth = decoder.count(".") + 2 if decoder and name.startswith(f"{decoder}.") else 2
        whole = name.removesuffix(".weight").removesuffix(".bias").split(".")
        found[".".join(whole[:depth])] += parameter.numel()
    return dict(found.most_common())
