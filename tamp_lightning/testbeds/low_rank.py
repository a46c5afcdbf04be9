"""What training changed in a language model's linears, small enough to ship: factors of low rank in 8-bit integers.

Every weight is trained. The difference to the weight before is small and nearly of low rank, so that its largest
singular vectors hold most of it; docs/results.md says how much, and what the model loses by the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tamp_lightning.errors import InputError

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PARTS = ("low_rank_up", "low_rank_up_scale", "low_rank_down", "low_rank_down_scale")
"""Of each linear's difference U D: int8 [out,r], float32 [r], int8 [r,in], float32 [r]."""
LEVELS = 127


def factors(difference: Tensor, rank: int) -> dict[str, Tensor]:
    """The best approximation of this rank, its two factors rounded to 8 bits.

    Args:
        difference: [out,in].
        rank: at most the smaller side.

    Returns:
        The tensors of `PARTS`. Each singular value is shared by its two vectors, each vector has a scale of its own.
    """
    left, values, right = torch.linalg.svd(difference.float(), full_matrices=False)
    root = values[:rank].sqrt()
    up, up_scale = _rounded((left[:, :rank] * root).T)
    down, down_scale = _rounded(root[:, None] * right[:rank])
    return dict(zip(PARTS, (up.T.contiguous(), up_scale, down, down_scale), strict=True))


def _rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    scale = rows.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / LEVELS
    return (rows / scale[:, None]).round().to(torch.int8), scale


def low_rank_difference(trained: Mapping[str, Tensor], before: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """Factors of every linear of the language model, named after its weight.

    Args:
        trained: state dict of the model.
        before: the same, before it was trained.
        rank: of each difference.
    """
    found: dict[str, Tensor] = {}
    for name in filter(is_linear, trained):
        stem = name.removesuffix(".weight")
        parts = factors(trained[name].float() - before[name].float(), rank)
        found |= {f"{stem}.{part}": value for part, value in parts.items()}
    return found


def is_linear(name: str) -> bool:
    """Whether a parameter is the weight of one of the language model's linears; towers have some of these names too."""
    return "language_model" in name and name.endswith(tuple(f".{linear}.weight" for linear in LINEARS))


def split_low_rank(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The factors among a file's tensors, and the others."""
    found = {k: v for k, v in state.items() if k.endswith(tuple(f".{part}" for part in PARTS))}
    return found, {k: v for k, v in state.items() if k not in found}


@torch.no_grad()
def merge_low_rank(model: nn.Module, found: Mapping[str, Tensor]) -> None:
    """Add every difference to its weight: in float32, rounded once to the weight's dtype.

    Args:
        model: with the weights before training.
        found: from `low_rank_difference`.

    Raises:
        InputError: a part has no partner, or the model has no such weight.
    """
    weights = dict(model.named_parameters())
    for stem in sorted({k.rpartition(".")[0] for k in found}):
        parts, weight = [found.get(f"{stem}.{part}") for part in PARTS], weights.get(f"{stem}.weight")
        if weight is None or any(part is None for part in parts):
            raise InputError(f"{stem} needs {', '.join(PARTS)} and a weight in the model: restore the file")
        up, up_scale, down, down_scale = (part.float() for part in parts if part is not None)
        difference = (up * up_scale) @ (down_scale[:, None] * down)
        weight.copy_((weight.float() + difference.to(weight.device)).to(weight.dtype))
