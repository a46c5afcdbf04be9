"""One prunable matrix of a model: where it stands in its block, in the model and on disk."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

OUTSIDE = -1
"""Number of the block of linears that stand in no decoder block: those of towers and projector."""


@dataclass(frozen=True)
class Piece:
    """Where a matrix stands in a parameter that stacks several, as the experts of a mixture are kept."""

    layer: str
    """Module name of the layer of experts, relative to the block, e.g. ``mlp.experts``."""
    parameter: str
    """Parameter name relative to the block, e.g. ``mlp.experts.gate_up_proj``."""
    expert: int
    """Its first index."""
    rows: tuple[int, int | None, int]
    """Start, stop and step of its outputs."""
    transposed: bool
    """Whether it stands there as [in, out]."""
    reads_hidden: bool
    """Whether it reads what the layer is given; otherwise the activations of its expert."""

    def of(self, stacked: Tensor) -> Tensor:
        """The matrix [out, in] in the parameter, or in a tensor of its shape: a view."""
        matrix = stacked[self.expert]
        return (matrix.mT if self.transposed else matrix)[slice(*self.rows)]


@dataclass(frozen=True)
class Linear:
    """A weight matrix [out, in] that is pruned by itself. What is known of it is looked up with the object as key."""

    block: int
    """Number of its decoder block, or `OUTSIDE`."""
    name: str
    """Relative to its block, e.g. ``self_attn.q_proj``; outside of the blocks the full name."""
    full: str
    """Module name in the model, e.g. ``model.language_model.layers.3.self_attn.q_proj``; that of an expert's matrix is
    what it would be if the expert were a module of its own, e.g. ``...layers.3.mlp.experts.17.gate_proj``."""
    shape: tuple[int, int]
    """(out, in)."""
    key: str | None = field(default=None, compare=False)
    """Key on disk of its weight; None where the model is not of a checkpoint on disk."""
    piece: Piece | None = field(default=None, compare=False)
    """Where it stands in a parameter that stacks several matrices; None for the weight of an ``nn.Linear``."""

    stored: Piece | None = field(default=None, compare=False)
    """Where it stands in what is stored under its key; None if it is that itself."""

    def __str__(self) -> str:
        return self.full

    @property
    def parameter(self) -> str:
        """Name of the parameter that holds its weight, relative to its block (outside of the blocks: full)."""
        return f"{self.name}.weight" if self.piece is None else self.piece.parameter

    @property
    def module(self) -> str:
        """Name of the module that computes with it, relative to its block: itself, or its layer of experts."""
        return self.name if self.piece is None else self.piece.layer

    def weight(self, module: nn.Module) -> Tensor:
        """Its weight [out, in] in `module`, its block (outside of the blocks: the model); to write to it is to prune.

        Raises:
            AttributeError: the module has no such linear.
        """
        return self.part(module.get_parameter(self.parameter))

    def part(self, value: Tensor) -> Tensor:
        """What of its parameter's value, or of a mask of that shape, is its own [out, in]: a view."""
        return value if self.piece is None else self.piece.of(value)

    def stored_part(self, value: Tensor) -> Tensor:
        """What of a tensor as it is stored under its key is its own [out, in]: a view."""
        return value if self.stored is None else self.stored.of(value)
