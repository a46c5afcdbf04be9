"""What may change in a block beside its pruned matrices: the scales and biases of norms, and the biases of linears."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from tamp_lightning.checkpoint.linear import Linear


def scales_of(block: nn.Module, linears: Iterable[Linear]) -> list[str]:
    """Names, relative to the block, of every parameter of its norms and of the biases of its linears.

    Args:
        block: with weights or without.
        linears: those that are pruned. Biases of experts, which are stacked, are left alone, as are those of routers.
    """
    biased = {linear.module for linear in linears if linear.piece is None}
    found = []
    for name, module in block.named_modules():
        if name and (name in biased or "norm" in type(module).__name__.lower()):
            own = (key for key, value in module.named_parameters(recurse=False) if value.is_floating_point())
            found += [f"{name}.{key}" for key in own if name not in biased or key == "bias"]
    return found
