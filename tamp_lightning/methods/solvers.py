"""Which weights of a linear go."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from tamp_lightning.ops import scores


class Solver(Protocol):
    """Scores the weights of a linear."""

    needs_statistics: ClassVar[bool]
    """The solver reads the squared norms of the input features."""

    def scores(self, weight: Tensor, sq_norm: Tensor) -> Tensor:
        """Importance float32 [o, c] of weight [o, c], given its inputs' squared norms [c]."""


@dataclass(frozen=True)
class Wanda:
    """Weight magnitude times the norm of its input feature; the kept weights do not change."""

    needs_statistics: ClassVar[bool] = True

    def scores(self, weight: Tensor, sq_norm: Tensor) -> Tensor:
        """|W| * sqrt(sq_norm), float32 [o, c]."""
        return scores.wanda(weight, sq_norm)
