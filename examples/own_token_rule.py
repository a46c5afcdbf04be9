"""A token rule of your own: the first tokens of a sample count alone.

In a recipe:

    plugins: [examples/own_token_rule.py]
    method: {tokens: first, first: {count: 64}}
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.methods.tokens import TOKENS, Stage, TokenContext


@TOKENS.register("first")
@dataclass(frozen=True)
class First:
    """The first tokens of every sample count, whatever their modality."""

    count: int = 32
    """How many; at least 1."""

    needs_attention: ClassVar[bool] = False
    needs_outputs: ClassVar[bool] = False
    stages: ClassVar[tuple[Stage, ...]] = ("collect",)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"first.count is {self.count}; it has to be at least 1.")

    def weights(self, context: TokenContext) -> Tensor:
        """Weight of each token, here bool [B, n]; padding must have none."""
        return context.valid & (context.valid.cumsum(1) <= self.count)
