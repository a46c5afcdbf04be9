"""A pruning method: one sparsity, four choices, and the constants of those that have any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.methods import ratios, tilt  # noqa: F401, register their members
from tamp_lightning.methods.allocation import ALLOCATIONS, WALKS, Allocation
from tamp_lightning.methods.options import Correction, Experts, Reconstruct, Refit
from tamp_lightning.methods.patterns import PATTERNS, Pattern, parse_pattern
from tamp_lightning.methods.sections import Sections
from tamp_lightning.methods.solvers import SOLVERS, Solver
from tamp_lightning.methods.statistics import Statistics
from tamp_lightning.methods.tokens import TOKENS, Stage, TokenRule
from tamp_lightning.methods.trials import Trial
from tamp_lightning.ops.correction import corrected_target
from tamp_lightning.ops.refit import refit
from tamp_lightning.ops.rounding import GROUP
from tamp_lightning.registry import Registry

Rule = TypeVar("Rule")


@dataclass(frozen=True)
class Method:
    """TAMP by default; Wanda is tokens: all with allocation: uniform."""

    # Beside these fields there is one for the constants of every registered member that has any: see `Sections`.
    sparsity: float = 0.5
    """Fraction of the prunable weights to remove, at least 0 and below 1."""
    tokens: str = "amia"
    """Which calibration tokens count in the statistics."""
    allocation: str = "das"
    """How the budget is shared among the linears."""
    solver: str = "wanda"
    """Which weights of a linear go, and whether the others move."""
    mode: Literal["sequential", "one_shot"] = "sequential"
    """sequential: each block sees what its pruned predecessors produce; one_shot: all see the dense model, one walk."""
    pattern: str = "row"
    """Where in a linear zeros may stand: row, matrix, or n:m in quotes, such as '2:4' (2 of every 4 are kept)."""
    correction: Correction = field(default_factory=Correction)
    """Error-corrected weights before any solver; off unless tau is above 0."""
    refit: Refit = field(default_factory=Refit)
    """Least squares of the weights that any solver kept; off unless steps is above 0."""
    reconstruct: Reconstruct = field(default_factory=Reconstruct)
    """Gradient steps after any solver; off unless steps is above 0."""
    experts: Experts = field(default_factory=Experts)
    """What goes for the experts of a mixture alone."""

    if TYPE_CHECKING:

        def __init__(self, **choices: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise InputError(f"sparsity is {self.sparsity}; it has to be at least 0 and below 1.")
        if self.mode not in ("sequential", "one_shot"):
            raise InputError(f"mode is {self.mode!r}; it has to be sequential or one_shot.")
        # resolving the names refuses unknown ones
        _ = self.token_rule, self.allocation_rule, self.solver_rule, self.pattern_rule
        floor = getattr(self.allocation_rule, "floor", 0.0)
        if floor > self.sparsity:
            raise InputError(f"{self.allocation}.floor is {floor}; it has to be at most sparsity, {self.sparsity}.")
        self._refuse_senseless()

    def _refuse_senseless(self) -> None:
        if self.pattern_rule.fixes_ratio and self.allocation != "uniform":
            raise InputError(
                f"allocation is {self.allocation}; pattern '{self.pattern}' fixes every linear's sparsity: "
                "set allocation: uniform."
            )
        self.pattern_rule.check(self.sparsity, {})
        if all(getattr(rule, "trial", None) for rule in (self.token_rule, self.allocation_rule)):
            raise InputError(
                f"tokens is {self.tokens}; {self.allocation}.widths tries something else on every block, which has one "
                f"trial: set {self.allocation}.widths: [] or other tokens."
            )
        if self.statistics == "nothing" and self.tokens != "all":
            raise InputError(
                f"tokens is {self.tokens}; solver: {self.solver} reads no activations, so no token counts: "
                "set tokens: all."
            )
        if self.correction.on and "mix" in self.token_rule.stages:
            raise InputError(
                f"tokens is {self.tokens}; correction needs one set of token weights, not one per modality: "
                "set correction.tau: 0 or other tokens."
            )
        if getattr(self.solver_rule, "values", "none") != "none":
            self._refuse_rounding()
        if self.mode == "one_shot":
            self._refuse_one_shot()

    def _refuse_rounding(self) -> None:
        for name, steps in (("reconstruct", self.reconstruct.steps), ("refit", self.refit.steps)):
            if steps > 0:
                raise InputError(
                    f"{name}.steps is {steps}; it moves weights off the numbers that {self.solver}.values rounds to: "
                    f"set {name}.steps: 0 or {self.solver}.values: none."
                )
        group = getattr(self.pattern_rule, "m", 1)
        if GROUP % group:
            raise InputError(
                f"pattern is '{self.pattern}'; {self.solver}.values rounds groups of {GROUP} columns, of which {group} "
                f"is no divisor: set {self.solver}.values: none."
            )

    def _refuse_one_shot(self) -> None:
        if len(self.prune_stages) > 1:
            which = "tokens" if len(self.token_rule.stages) > 1 else "allocation"
            raise InputError(
                f"{which} is {getattr(self, which)}; mode: one_shot passes every block once, and it needs two passes: "
                "set mode: sequential."
            )
        if self.correction.on or self.reconstruct.on:
            which = "correction.tau" if self.correction.on else "reconstruct.steps"
            raise InputError(f"{which} is above 0; it needs pruned blocks before: set mode: sequential or {which}: 0.")

    def check(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Refuse a model that the method does not fit, by the shapes of its linears; no weight is needed.

        Raises:
            InputError: the pattern does not fit a width, or one_shot would have to hold the Hessians of all linears.
        """
        self.pattern_rule.check(self.sparsity, shapes)
        if self.mode == "one_shot" and self.statistics == "hessian":
            memory = sum(4 * width**2 for _, width in shapes.values()) / 2**30
            solves = self.solver_rule.needs == "hessian"
            which = f"solver is {self.solver}" if solves else f"refit.steps is {self.refit.steps}"
            others = ["solver: wanda or ria"] * solves + ["refit.steps: 0"] * self.refit.on
            raise InputError(
                f"{which}; with mode: one_shot the Hessians of all {len(shapes)} linears would take up to "
                f"{memory:.1f} GiB at once: set mode: sequential, or {' and '.join(others)}."
            )

    @property
    def statistics(self) -> Literal["nothing", "diagonal", "hessian"]:
        """What is collected of every linear's inputs."""
        return "hessian" if self.correction.on or self.refit.on else self.solver_rule.needs

    @property
    def follows_dense(self) -> bool:
        """Whether the dense model's activations have to run along while blocks are pruned."""
        return self.correction.on or self.reconstruct.reads_dense

    @property
    def blends(self) -> bool:
        """Whether a share of the statistics of all tokens is wanted beside those of the chosen ones."""
        share = max(getattr(self.solver_rule, "share", 0.0), self.refit.share if self.refit.on else 0.0)
        return share > 0 and "mix" not in self.token_rule.stages

    def solve(self, weight: Tensor, statistics: Statistics, kept: int) -> tuple[Tensor, Tensor]:
        """Prune one linear.

        Args:
            weight: dense weight [o, c]; not changed.
            statistics: of its inputs, with what `statistics` names.
            kept: how many weights stay.

        Returns:
            Weight like `weight`, zero outside the mask, and the bool mask [o, c], True = keep. Where the tokens are too
            `few` to determine what other weights should be, `fallback` prunes, and nothing is refitted.

        Raises:
            InputError: statistics are missing, not finite, or do not determine the weights.
        """
        if statistics.few and self.statistics == "hessian":
            return self._chosen(SOLVERS, self.fallback).solve(weight, statistics, kept, self.pattern_rule)
        if self.correction.on and statistics.cross is not None and statistics.hessian is not None:
            moments = statistics.cross, statistics.hessian
            weight = corrected_target(weight, *moments, tau=self.correction.tau, damp=self.correction.damp)
        pruned, mask = self.solver_rule.solve(weight, statistics, kept, self.pattern_rule)
        if self.refit.on:
            hessian = statistics.blended(self.refit.share)
            pruned = refit(weight, pruned, mask, hessian, steps=self.refit.steps, damp=self.refit.damp)
        return pruned, mask

    @property
    def reads_activations(self) -> bool:
        """Whether pruning needs anything to pass the blocks, other than what the allocation measures."""
        return self.statistics != "nothing" or self.reconstruct.on

    @property
    def reads_outputs(self) -> bool:
        """Whether statistics need what linears or blocks put out, not only what linears read."""
        return self.token_rule.needs_outputs or len(self.prune_stages) > 1 or self.follows_dense

    @property
    def measure_stages(self) -> tuple[Stage, ...]:
        """Passes over each dense block before any is pruned; none if the allocation needs no activations."""
        return ("collect",) if self.allocation_rule.basis in WALKS else ()

    @property
    def prune_stages(self) -> tuple[Stage, ...]:
        """Passes over each block after its predecessors were pruned; it is pruned after the last."""
        stages = self.token_rule.stages
        return stages if self.trial is None or "mix" in stages else (*stages, "mix")

    @property
    def trial(self) -> Trial | None:
        """What is tried on every block, of the token rule or of the allocation; None if nothing is."""
        return getattr(self.token_rule, "trial", None) or getattr(self.allocation_rule, "trial", None)

    @property
    def token_rule(self) -> TokenRule:
        """The choice of tokens, with its constants."""
        return self._chosen(TOKENS, self.tokens)

    @property
    def allocation_rule(self) -> Allocation:
        """The choice of allocation, with its constants."""
        return self._chosen(ALLOCATIONS, self.allocation)

    @property
    def solver_rule(self) -> Solver:
        """The choice of solver, with its constants."""
        return self._chosen(SOLVERS, self.solver)

    @property
    def fallback(self) -> str:
        """The solver where too few tokens are known for a Hessian: the same if it needs none, else Wanda."""
        return "wanda" if self.solver_rule.needs == "hessian" else self.solver

    @property
    def pattern_rule(self) -> Pattern:
        """The choice of pattern."""
        return self._chosen(PATTERNS, self.pattern) if self.pattern in PATTERNS else parse_pattern(self.pattern)

    def _chosen(self, registry: Registry[type[Rule]], name: str) -> Rule:
        member = registry.find(name)
        return getattr(self, name) if fields(cast(Any, member)) else member()


CHOICES: dict[str, Registry[Any]] = {
    "tokens": TOKENS,
    "allocation": ALLOCATIONS,
    "solver": SOLVERS,
    "pattern": PATTERNS,
}
"""Where each choice's members are registered."""
_sections = Sections(Method)


def _declare() -> None:
    names = {choice: list(registry) for choice, registry in CHOICES.items() if choice != "pattern"}
    _sections.declare({choice: registry.loaded() for choice, registry in CHOICES.items()}, names)


for _registry in CHOICES.values():
    _registry.watchers.append(_declare)
_declare()
