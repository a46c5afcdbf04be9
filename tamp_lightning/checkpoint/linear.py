"""One prunable matrix of a model: where it stands in its block, in the model and on disk."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

OUTSIDE = -1
"""Number of the block of linears that stand in no decoder block: those of towers and projector."""


@dataclass(frozen=True)
class Linear:
    """A weight matrix [out, in] that is pruned by itself. What is known of it is looked up with the object as key."""

    block: int
    """Number of its decoder block, or `OUTSIDE`."""
    name: str
    """Relative to its block, e.g. ``self_attn.q_proj``; outside of the blocks the full name."""
    full: str
    """Module name in the model, e.g. ``model.language_model.layers.3.self_attn.q_proj``."""
    shape: tuple[int, int]
    """(out, in)."""
    key: str | None = field(default=None, compare=False)
    """Key on disk of its weight; None where the model is not of a checkpoint on disk."""

    def __str__(self) -> str:
        return self.full

    @property
    def parameter(self) -> str:
        """Name of the parameter that holds its weight, relative to its block (outside of the blocks: full)."""
        return f"{self.name}.weight"

    def weight(self, module: nn.Module) -> Tensor:
        """Its weight [out, in] in `module`, its block (outside of the blocks: the model); to write to it is to prune.

        Raises:
            AttributeError: the module has no such linear.
        """
        return module.get_parameter(self.parameter)
