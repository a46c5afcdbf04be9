"""What of a decoder block can be pruned: its linears, and the matrices of its experts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from tamp_lightning.checkpoint.linear import Linear, Piece
from tamp_lightning.compat.experts import are_experts, expert_count, expert_matrices


def prunable(block: nn.Module, index: int, path: str, dense: Sequence[re.Pattern[str]]) -> Iterator[Linear]:
    """Linears and matrices of experts of a block, in module order; weights may be on the meta device.

    Args:
        block: the block.
        index: its number.
        path: dotted path of the list of blocks.
        dense: patterns on names, relative to the block, of linears that are never pruned.
    """
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear) and not any(pattern.search(name) for pattern in dense):
            yield Linear(index, name, f"{path}.{index}.{name}", shape_of(module))
        elif are_experts(module):
            yield from _matrices(module, name, index, path)


def _matrices(module: nn.Module, layer: str, index: int, path: str) -> Iterator[Linear]:
    """Every matrix of a layer of experts, expert by expert."""
    for expert in range(expert_count(module)):
        for kind, parameter, rows, transposed, reads_hidden in expert_matrices(module):
            piece = Piece(layer, f"{layer}.{parameter}", expert, rows, transposed, reads_hidden)
            out, width = piece.of(module.get_parameter(parameter)).shape
            name = f"{layer}.{expert}.{kind}"
            yield Linear(index, name, f"{path}.{index}.{name}", (out, width), piece=piece)


def shape_of(linear: nn.Module) -> tuple[int, int]:
    """(out, in) of an ``nn.Linear``."""
    rows, columns = linear.get_parameter("weight").shape
    return rows, columns


def expert_layers(linears: Iterable[Linear]) -> dict[str, list[Linear]]:
    """Module name of each layer of experts, relative to its block -> those of the linears that are its matrices."""
    found: dict[str, list[Linear]] = {}
    for linear in linears:
        if linear.piece is not None:
            found.setdefault(linear.piece.layer, []).append(linear)
    return found
