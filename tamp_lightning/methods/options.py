"""Steps around a solver that any method can add, off by default, and what goes for experts alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tamp_lightning.errors import InputError
from tamp_lightning.methods.checks import check_above_zero, check_at_least_zero, check_one_of, check_share


@dataclass(frozen=True)
class Correction:
    """Prune weights that make up for the pruned blocks before: dense outputs from the pruned model's inputs."""

    tau: float = 0.0
    """How far to move to the corrected weights, 0 (off) to 1; less guards against overfitting few tokens."""
    damp: float = 0.01
    """Pull towards the dense weights, as a share of the Hessian's mean diagonal; above 0."""

    def __post_init__(self) -> None:
        if not 0 <= self.tau <= 1:
            raise InputError(f"correction.tau is {self.tau}; it has to be from 0 (off) to 1.")
        check_above_zero("correction", self, "damp", "0.01")

    @property
    def on(self) -> bool:
        """Whether a dense copy of the activations has to run along."""
        return self.tau > 0


@dataclass(frozen=True)
class Refit:
    """Move the weights that a solver kept to the least squared error of their linear; masks stay as they are."""

    steps: int = 0
    """Steps of conjugate gradients, a product of weight and Hessian each, such as 10; 0 is off."""
    damp: float = 0.01
    """Pull towards the dense weights, as a share of the Hessian's mean diagonal; above 0."""
    share: float = 1.0
    """Share of the all-token Hessian where a token rule leaves tokens out, 0 to 1; at 1 the rule chooses the mask and
    all tokens what stands in it."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InputError(f"refit.steps is {self.steps}; it has to be at least 0 (off), such as 10.")
        check_above_zero("refit", self, "damp", "0.01")
        check_share("refit", self.share, "1.0")

    @property
    def on(self) -> bool:
        """Whether there is anything to do."""
        return self.steps > 0


@dataclass(frozen=True)
class Reconstruct:
    """Gradient steps on each pruned block's output error, attention first, then the MLP; masks stay as they are."""

    steps: int = 0
    """Steps for attention and again for the MLP, a calibration batch each (of every process); 0 is off."""
    lr: float = 1e-4
    """Highest learning rate of AdamW, reached after a tenth of the steps; above 0."""
    weigh: Literal["tokens", "modalities", "rule"] = "tokens"
    """What counts the same in the error: every token, or every modality of a batch, however few tokens it has; or rule:
    a token counts by the share of the block's linears in whose statistics the method's token rule counts it."""
    halves: bool = True
    """Attention and MLP one after the other; False: the whole block at once."""
    norms: bool = False
    """Train the scales and biases of norms and the biases of linears too, and write them."""
    inputs: Literal["pruned", "dense"] = "pruned"
    """What the block reads: what its pruned predecessors give, or the dense model's activations."""
    target: Literal["block", "model"] = "block"
    """What it should put out: what the dense block makes of the same inputs, or of the dense model's activations, as
    always with correction."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InputError(f"reconstruct.steps is {self.steps}; it has to be at least 0 (off), such as 40.")
        check_above_zero("reconstruct", self, "lr", "1e-4")
        check_one_of("reconstruct", self, "weigh", ("tokens", "modalities", "rule"))
        check_one_of("reconstruct", self, "inputs", ("pruned", "dense"))
        check_one_of("reconstruct", self, "target", ("block", "model"))

    @property
    def on(self) -> bool:
        """Whether there is anything to do."""
        return self.steps > 0

    @property
    def reads_dense(self) -> bool:
        """Whether it needs the dense model's activations beside those of the pruned blocks."""
        return self.on and (self.inputs == "dense" or self.target == "model")


@dataclass(frozen=True)
class Experts:
    """Statistics of the experts of a mixture, each from the tokens that are routed to it."""

    shrink: float = 128.0
    """Tokens that the mean over all experts of the layer counts for in each one's statistics; at least 0."""
    gate_weighted: bool = False
    """Weigh each token by its gate, so that norms are those of x * gate (MoE-Pruner, arXiv 2410.12013)."""

    def __post_init__(self) -> None:
        check_at_least_zero("experts", self, "shrink")
