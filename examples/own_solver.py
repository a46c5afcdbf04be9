"""A solver of your own: weights go by chance, the more likely the smaller they are.

One file is all it takes. The name given to `register` is what recipes say, the fields are the constants (with their
docstrings in `--help`), and `title` and `says` are what reports and model cards call it. In a recipe:

    plugins: [examples/own_solver.py]      # this file's code then runs
    method: {solver: by_chance, by_chance: {temperature: 0.5}, tokens: all, allocation: uniform}
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.methods.patterns import Pattern
from tamp_lightning.methods.solvers import SOLVERS, Needs, keep_best
from tamp_lightning.methods.statistics import Statistics


@SOLVERS.register("by_chance")
@dataclass(frozen=True)
class ByChance:
    """Wanda's scores with noise on their logarithms, so that masks are a draw."""

    temperature: float = 0.1
    """Scale of the noise; 0 is Wanda."""
    seed: int = 0
    """Seed of the noise."""

    title: ClassVar[str] = "Wanda by chance"
    says: ClassVar[str] = "the weights that go are drawn, small ones most often"
    needs: ClassVar[Needs] = "diagonal"

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise InputError(f"by_chance.temperature is {self.temperature}; it has to be at least 0.")

    def solve(self, weight: Tensor, statistics: Statistics, kept: int, pattern: Pattern) -> tuple[Tensor, Tensor]:
        """The new weight [o, c] and its mask; `pattern` knows where zeros may stand."""
        scores = (weight.float().abs() * statistics.diagonal().float().sqrt()).log()
        uniform = torch.rand(scores.shape, generator=torch.Generator().manual_seed(self.seed)).to(scores.device)
        return keep_best(weight, scores - self.temperature * (-uniform.log()).log(), kept, pattern)
