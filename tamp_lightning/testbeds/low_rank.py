"""Low-rank updates of a language model's linears: trained beside the frozen weights, merged into them afterwards.

LoRA (arXiv 2106.09685) without dropout. PEFT is not used here: what is wanted is two small matrices a linear under
names that follow from the weight's, in a file that outlives the version of a library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tamp_lightning.errors import InputError

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
DOWN, UP = "low_rank_down", "low_rank_up"


class LowRankLinear(nn.Module):
    """y = x W' + (x D') U', W frozen; U begins at zero, so the first forward is that of W alone.

    Args:
        linear: its weight [out,in] is used as it is; it has no bias.
        rank: of the update U D.
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.weight = linear.weight
        rows, columns = linear.weight.shape
        self.low_rank_down = nn.Parameter(torch.empty(rank, columns))
        self.low_rank_up = nn.Parameter(torch.zeros(rows, rank))
        nn.init.kaiming_uniform_(self.low_rank_down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """[...,in] -> [...,out]."""
        return F.linear(x, self.weight) + F.linear(F.linear(x, self.low_rank_down), self.low_rank_up)


def add_low_rank(language_model: nn.Module, rank: int) -> None:
    """Put a low-rank update beside every linear of every decoder block, in place.

    Raises:
        InputError: a linear has a bias.
    """
    for parent in list(language_model.modules()):
        for name in LINEARS:
            linear = getattr(parent, name, None)
            if isinstance(linear, nn.Linear):
                if linear.bias is not None:
                    raise InputError(f"{name} has a bias, which a low-rank update of this kind does not keep")
                setattr(parent, name, LowRankLinear(linear, rank))


def low_rank_state(model: nn.Module) -> dict[str, Tensor]:
    """The factors, by name in the model."""
    return {k: v.detach() for k, v in model.state_dict().items() if k.endswith((DOWN, UP))}


def split_low_rank(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The factors among a file's tensors, and the others."""
    factors = {k: v for k, v in state.items() if k.endswith((DOWN, UP))}
    return factors, {k: v for k, v in state.items() if k not in factors}


@torch.no_grad()
def merge_low_rank(model: nn.Module, factors: Mapping[str, Tensor]) -> None:
    """Add every product of factors to the weight it was trained beside: in float32, rounded once to its dtype.

    Args:
        model: a plain model, with none of `add_low_rank`.
        factors: from `low_rank_state`.

    Raises:
        InputError: a factor has no partner, or the model has no such weight.
    """
    weights = dict(model.named_parameters())
    stems = {k.rpartition(".")[0] for k in factors}
    for stem in sorted(stems):
        down, up, weight = (factors.get(f"{stem}.{DOWN}"), factors.get(f"{stem}.{UP}"), weights.get(f"{stem}.weight"))
        if down is None or up is None or weight is None:
            raise InputError(f"{stem} needs {DOWN}, {UP} and a weight in the model: restore the file")
        update = up.float() @ down.float()
        weight.copy_((weight.float() + update.to(weight.device)).to(weight.dtype))
