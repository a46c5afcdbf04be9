"""What is pruned before the decoder: nothing, unless a recipe gives towers and projector a sparsity."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tamp_lightning.errors import InputError
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.options import Correction, Reconstruct


@dataclass(frozen=True)
class Towers:
    """Linears of towers and projector; solver and pattern are the method's, every token that is not padding counts."""

    sparsity: float = 0.0
    """Fraction of their weights to remove, at least 0 (they stay dense) and below 1; the same in every linear."""
    include: list[str] = field(default_factory=list)
    """Regular expressions on full linear names; empty = every linear outside of the decoder that media reach."""
    exclude: list[str] = field(default_factory=list)
    """Regular expressions on full linear names that stay dense."""

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise InputError(f"towers.sparsity is {self.sparsity}; it has to be at least 0 (dense) and below 1.")
        if not self.on and (self.include or self.exclude):
            name = "include" if self.include else "exclude"
            raise InputError(f"towers.{name} is given, but towers.sparsity is 0, so that all stay dense: set it.")

    @property
    def on(self) -> bool:
        """Whether anything is pruned."""
        return self.sparsity > 0

    def method(self, decoder: Method) -> Method:
        """How the towers are pruned: the decoder's solver and pattern, all tokens, the same sparsity everywhere.

        Raises:
            InputError: the pattern does not allow this sparsity.
        """
        plain = replace(decoder, correction=Correction(), reconstruct=Reconstruct())
        try:
            return replace(plain, sparsity=self.sparsity, tokens="all", allocation="uniform")
        except InputError as error:
            raise InputError(f"towers.{error}") from None
