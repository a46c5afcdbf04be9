"""Which calibration tokens count in a linear's statistics, and how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.methods.trials import Trial, check_trial
from tamp_lightning.ops.drift import TEXT, select_drifted
from tamp_lightning.ops.tokens import Picking, select_representative
from tamp_lightning.registry import Registry

Stage = Literal["collect", "drift", "mix"]
"""What a pass over a block is for: statistics, the block's drift before them, choosing a mix of them after."""


@dataclass(frozen=True)
class TokenContext:
    """What a rule may look at: one linear's tokens of one batch. What a rule does not need may be missing."""

    modality: Tensor
    """[B, n], 0 text, 1 image, 2 video, 3 audio."""
    valid: Tensor
    """[B, n] bool, False on padding."""
    outputs: Tensor | None = None
    """[B, n, d], outputs of the linear."""
    attention: Tensor | None = None
    """[B, n], attention that each token receives."""
    drift: Tensor | None = None
    """[B, n], how far the block turns each token."""
    mean_drift: float | None = None
    """Mean drift of the block's non-text tokens over all samples."""


class TokenRule(Protocol):
    """Gives every calibration token a weight for one linear."""

    needs_attention: ClassVar[bool]
    """The rule reads the attention each token receives."""
    needs_outputs: ClassVar[bool]
    """The rule reads the linear's outputs, so weights differ from linear to linear."""
    stages: ClassVar[tuple[Stage, ...]]
    """The passes over a block that the rule asks for, in order."""

    def weights(self, context: TokenContext) -> Tensor:
        """Weight of each token in the statistics of one linear.

        Returns:
            [B, n], bool or float32, >= 0 and zero on padding.

        Raises:
            InputError: something the rule needs is missing.
        """


TOKENS: Registry[type[TokenRule]] = Registry("tokens", "tamp_lightning.tokens")


@TOKENS.register("all")
@dataclass(frozen=True)
class All:
    """Every token counts the same, as in Wanda."""

    says: ClassVar[str] = "every calibration token counts"
    needs_attention: ClassVar[bool] = False
    needs_outputs: ClassVar[bool] = False
    stages: ClassVar[tuple[Stage, ...]] = ("collect",)

    def weights(self, context: TokenContext) -> Tensor:
        """True on every token that is not padding, bool [B, n]."""
        return context.valid


@TOKENS.register("amia")
@dataclass(frozen=True)
class Amia(Picking):
    """Only tokens that represent the sample, chosen by attention and similarity (TAMP section 3.3)."""

    per: Literal["linear", "input", "block"] = "linear"
    """Tokens are chosen for each linear, once for all that read the same input, or once for the block; faster."""

    title: ClassVar[str] = "AMIA"
    says: ClassVar[str] = "the tokens that represent a sample count, found by attention and similarity"
    needs_attention: ClassVar[bool] = True
    needs_outputs: ClassVar[bool] = True
    stages: ClassVar[tuple[Stage, ...]] = ("collect",)

    def __post_init__(self) -> None:
        for name in ("neighbors", "forward_decay", "reverse_decay", "threshold"):
            if not getattr(self, name) >= 0:
                raise InputError(f"amia.{name} is {getattr(self, name)}; it has to be at least 0.")
        if not self.bandwidth > 0:
            raise InputError(f"amia.bandwidth is {self.bandwidth}; it has to be above 0, such as 1.0.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise InputError(f"amia.max_tokens is {self.max_tokens}; it has to be at least 1, such as 512.")

    def weights(self, context: TokenContext) -> Tensor:
        """True on the picked tokens, bool [B, n]; see `ops.tokens.select_representative`.

        Raises:
            InputError: outputs or attention are missing, or the shapes do not agree.
        """
        if context.outputs is None:
            raise InputError("the token rule amia got no outputs; collect them or use tokens: all.")
        return self._select(context, [context.outputs])[0]

    def by_linear(self, context: TokenContext, groups: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Tokens picked for every linear of a block at once; linears that share a choice share the tensor.

        With `per: input` linears that read the same input are taken for one with all their outputs side by side, which
        is what they are in a model that fuses them (qkv_proj, gate_up_proj). With `per: block` the first such group,
        queries, keys and values, decides for the whole block.

        Args:
            context: without outputs.
            groups: outputs [B, n, d] by linear, one group per input that is read, in the order of the block.

        Returns:
            Bool [B, n] by linear.

        Raises:
            InputError: attention is missing, or the shapes do not agree.
        """
        if self.per == "linear":
            choices = [([name], outputs) for group in groups for name, outputs in group.items()]
        else:
            choices = [(list(group), torch.cat(list(group.values()), -1)) for group in groups]
        if self.per == "block":
            choices = [([name for group in groups for name in group], choices[0][1])]
        picked = self._select(context, [outputs for _, outputs in choices])
        return {name: tokens for (names, _), tokens in zip(choices, picked, strict=True) for name in names}

    def _select(self, context: TokenContext, outputs: Sequence[Tensor]) -> Tensor:
        if context.attention is None:
            raise InputError("the token rule amia got no attention; collect it or use tokens: all.")
        return select_representative(outputs, context.attention, context.modality, self, valid=context.valid)


@TOKENS.register("text_only")
@dataclass(frozen=True)
class TextOnly:
    """Text tokens alone count."""

    says: ClassVar[str] = "only text tokens count"
    needs_attention: ClassVar[bool] = False
    needs_outputs: ClassVar[bool] = False
    stages: ClassVar[tuple[Stage, ...]] = ("collect",)

    def weights(self, context: TokenContext) -> Tensor:
        """True on every text token, bool [B, n]."""
        return context.valid & (context.modality == TEXT)


@TOKENS.register("atv")
@dataclass(frozen=True)
class Atv:
    """All text tokens, and per sample the other tokens that the block changes most (ATV, arXiv 2603.16001)."""

    alpha: float = 1.0
    """Other tokens per text token and unit of mean drift, at least 0; 0 is text alone."""

    title: ClassVar[str] = "ATV"
    says: ClassVar[str] = "text counts, and the other tokens that a block changes most"
    needs_attention: ClassVar[bool] = False
    needs_outputs: ClassVar[bool] = False
    stages: ClassVar[tuple[Stage, ...]] = ("drift", "collect")

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise InputError(f"atv.alpha is {self.alpha}; it has to be a finite number, at least 0, such as 1.0.")

    def weights(self, context: TokenContext) -> Tensor:
        """True on text and on the most drifted others, bool [B, n]; see `ops.drift.select_drifted`.

        Raises:
            InputError: the drift was not measured.
        """
        if context.drift is None or context.mean_drift is None:
            raise InputError("the token rule atv got no drift; measure it or use tokens: text_only.")
        return select_drifted(context.drift, context.modality, context.valid, context.mean_drift, self.alpha)


@TOKENS.register("modality_mix")
@dataclass(frozen=True)
class ModalityMix:
    """Statistics kept apart by modality, then mixed so that text loses least in the block's output."""

    lambdas: tuple[float, ...] = (0.0, 0.1, 0.3, 1.0)
    """Weights of the other modalities' mean statistics to try, text having 1; each at least 0."""
    held_out: float = 0.25
    """Share of the samples that judge the mixes and do not enter the statistics; above 0, at most 0.5."""

    says: ClassVar[str] = "text and other tokens are mixed so that text loses least"
    needs_attention: ClassVar[bool] = False
    needs_outputs: ClassVar[bool] = False
    stages: ClassVar[tuple[Stage, ...]] = ("collect", "mix")

    def __post_init__(self) -> None:
        check_trial("modality_mix", "lambdas", self.lambdas, self.held_out, 0)

    @property
    def trial(self) -> Trial:
        """What is tried on every block."""
        return Trial("modality_mix", "lambda", self.lambdas, self.held_out, by_text=True)

    def weights(self, context: TokenContext) -> Tensor:
        """True on every token that is not padding; the callback keeps modalities and held-out samples apart."""
        return context.valid
