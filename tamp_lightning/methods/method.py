"""A pruning method: one sparsity, four choices, and the constants of those that have any."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal, TypeVar

from tamp_lightning.methods.allocation import Allocation, Constant, Das, Uniform
from tamp_lightning.methods.patterns import Pattern, Row
from tamp_lightning.methods.solvers import Solver, Wanda
from tamp_lightning.methods.tokens import All, Amia, TokenRule

Member = TypeVar("Member")


@dataclass(frozen=True)
class Method:
    """TAMP by default; Wanda is tokens: all with allocation: uniform."""

    sparsity: float = 0.5
    """Fraction of the prunable weights to remove, at least 0 and below 1."""
    tokens: Literal["all", "amia"] = "amia"
    """Which calibration tokens count in the statistics."""
    allocation: Literal["uniform", "constant", "das"] = "das"
    """How the budget is shared among the linears."""
    solver: Literal["wanda"] = "wanda"
    """Which weights of a linear go."""
    pattern: Literal["row"] = "row"
    """Where in a linear zeros may stand."""
    amia: Amia = field(default_factory=Amia)
    """Constants of tokens: amia."""
    das: Das = field(default_factory=Das)
    """Constants of allocation: das."""
    constant: Constant = field(default_factory=Constant)
    """Constants of allocation: constant."""

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity is {self.sparsity}; it has to be at least 0 and below 1.")
        # resolving the names refuses unknown ones
        _ = self.token_rule, self.allocation_rule, self.solver_rule, self.pattern_rule
        if self.allocation == "das" and self.das.floor > self.sparsity:
            raise ValueError(f"das.floor is {self.das.floor}; it has to be at most sparsity, {self.sparsity}.")

    @property
    def token_rule(self) -> TokenRule:
        """The choice of tokens, with its constants."""
        members: dict[str, TokenRule] = {"all": All(), "amia": self.amia}
        return _resolve("tokens", self.tokens, members)

    @property
    def allocation_rule(self) -> Allocation:
        """The choice of allocation, with its constants."""
        members: dict[str, Allocation] = {"uniform": Uniform(), "constant": self.constant, "das": self.das}
        return _resolve("allocation", self.allocation, members)

    @property
    def solver_rule(self) -> Solver:
        """The choice of solver."""
        members: dict[str, Solver] = {"wanda": Wanda()}
        return _resolve("solver", self.solver, members)

    @property
    def pattern_rule(self) -> Pattern:
        """The choice of pattern."""
        members: dict[str, Pattern] = {"row": Row()}
        return _resolve("pattern", self.pattern, members)


def _resolve(choice: str, name: str, members: Mapping[str, Member]) -> Member:
    if name in members:
        return members[name]
    near = get_close_matches(str(name), members, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(f"{choice} is {name!r}; it has to be one of {', '.join(members)}.{hint}")
