"""Which calibration tokens count in a linear's statistics, and how much."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from tamp_lightning.ops.tokens import select_representative


class TokenRule(Protocol):
    """Gives every calibration token a weight for one linear."""

    needs_attention: ClassVar[bool]
    """The rule reads the attention each token receives."""
    needs_outputs: ClassVar[bool]
    """The rule reads the linear's outputs, so weights differ from linear to linear."""

    def weights(self, outputs: Tensor | None, attention: Tensor | None, modality: Tensor, valid: Tensor) -> Tensor:
        """Weight of each token in the statistics of one linear.

        Args:
            outputs: outputs of the linear [B, n, d]; None is allowed unless `needs_outputs`.
            attention: attention each token receives [B, n]; None is allowed unless `needs_attention`.
            modality: [B, n], 0 text, 1 image, 2 video, 3 audio.
            valid: [B, n] bool, False on padding.

        Returns:
            [B, n], bool or float32, >= 0 and zero on padding.
        """


@dataclass(frozen=True)
class All:
    """Every token counts the same, as in Wanda."""

    needs_attention: ClassVar[bool] = False
    needs_outputs: ClassVar[bool] = False

    def weights(self, outputs: Tensor | None, attention: Tensor | None, modality: Tensor, valid: Tensor) -> Tensor:
        """True on every token that is not padding, bool [B, n]."""
        return valid


@dataclass(frozen=True)
class Amia:
    """Only tokens that represent the sample, chosen by attention and similarity (TAMP section 3.3)."""

    neighbors: int = 3
    """Nearest tokens with which a token exchanges attention; at least 0."""
    forward_decay: float = 1.0
    """How fast attention received from a neighbour falls with cosine distance; at least 0."""
    reverse_decay: float = 0.2
    """How fast the penalty on a picked token's neighbours falls with cosine distance; at least 0."""
    bandwidth: float = 1.0
    """Sigma of the Gaussian kernel that compares picked tokens with all tokens; above 0."""
    threshold: float = 0.1
    """Picking stops at squared MMD < threshold * sqrt(1 - density); smaller picks more tokens."""
    positive_only: bool = False
    """Density over positive cosines only within a modality, as the released code does; slower."""

    needs_attention: ClassVar[bool] = True
    needs_outputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("neighbors", "forward_decay", "reverse_decay", "threshold"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"amia.{name} is {getattr(self, name)}; it has to be at least 0.")
        if not self.bandwidth > 0:
            raise ValueError(f"amia.bandwidth is {self.bandwidth}; it has to be above 0, such as 1.0.")

    def weights(self, outputs: Tensor | None, attention: Tensor | None, modality: Tensor, valid: Tensor) -> Tensor:
        """True on the picked tokens, bool [B, n]; see `ops.tokens.select_representative`.

        Raises:
            ValueError: outputs or attention are missing, or the shapes do not agree.
        """
        if outputs is None or attention is None:
            missing = "outputs" if outputs is None else "attention"
            raise ValueError(f"the token rule amia got no {missing}; collect them or use tokens: all.")
        return select_representative(
            outputs,
            attention,
            modality,
            valid=valid,
            neighbors=self.neighbors,
            forward_decay=self.forward_decay,
            reverse_decay=self.reverse_decay,
            bandwidth=self.bandwidth,
            threshold=self.threshold,
            positive_only=self.positive_only,
        )
