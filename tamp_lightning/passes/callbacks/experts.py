"""Statistics of the experts of the current block, and what of a method experts cannot have."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tamp_lightning.checkpoint.facts import ModelFacts
from tamp_lightning.checkpoint.linear import Linear, Piece
from tamp_lightning.compat.experts import gates_inputs
from tamp_lightning.distributed.collectives import check_same
from tamp_lightning.distributed.partition import BatchPartition
from tamp_lightning.errors import InputError
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.statistics import Statistics
from tamp_lightning.ops.hessian import weighted_cross, weighted_gram
from tamp_lightning.passes.callbacks.tokens import unreached
from tamp_lightning.passes.expert_sums import ExpertSums, ExpertTokens, Seen
from tamp_lightning.passes.routing import Routed


def check_experts(model: nn.Module, facts: ModelFacts, method: Method) -> None:
    """Refuse what experts cannot have.

    Raises:
        InputError: naming the option and the remedy.
    """
    found = next((linear for linear in facts.all_linears if linear.piece is not None), None)
    if found is None or found.piece is None or not method.correction.on:
        return
    if gates_inputs(model.get_submodule(f"{facts.blocks}.{found.block}.{found.piece.layer}")):
        layer = found.piece.layer.rpartition(".")[2]
        raise InputError(
            "correction.tau is above 0; its experts read tokens times gates, and one that the dense model sends "
            "elsewhere has nothing to aim at: "
            f"set correction.tau: 0, or leave experts dense with exclude: ['{layer}\\.']."
        )


def tell_of_rare_experts(report: Mapping[str, Mapping[str, Any]], method: Method) -> None:
    """Warn once of experts that few calibration tokens were routed to."""
    rows = [row for row in report.values() if "expert_tokens" in row]
    rare = sum(row["expert_tokens"] < method.experts.shrink for row in rows)
    fallen = sum("fallback" in row for row in rows)
    if rare or fallen:
        first = f"{rare} of {len(rows)} matrices of experts got fewer than {method.experts.shrink:g} calibration tokens"
        how = f"{method.fallback}, without refit" if method.refit.on else method.fallback
        second = f"; {fallen} got fewer than they have columns and were pruned by {how}" if fallen else ""
        warnings.warn(f"{first}{second}: calibrate with more samples, or longer ones", stacklevel=2)


@dataclass
class _Layer:
    """What is known of one layer of experts."""

    full: str
    module: nn.Module
    sums: dict[int, ExpertSums] = field(default_factory=dict)
    """By part of the tokens."""
    tokens: ExpertTokens = field(default_factory=ExpertTokens)
    """Empty unless second moments are wanted."""


class ExpertStatistics:
    """Adds up what each expert of a block is given; a part of `StatisticsCollector`.

    Attributes:
        layers: by module name relative to the block.
    """

    def __init__(self, method: Method) -> None:
        self.method, self.options = method, method.experts
        self.clear()

    def clear(self) -> None:
        """Forget the block."""
        self.layers: dict[str, _Layer] = {}
        self._last: tuple[object, dict[int, Statistics]] | None = None

    def add(
        self,
        linear: Linear,
        routed: Routed,
        parts: Mapping[int, Tensor],
        valid: Tensor,
        seen: Seen,
        twin: Routed | None = None,
    ) -> None:
        """Add a batch that a layer was given.

        Args:
            linear: stands for the whole layer.
            routed: what the layer was given.
            parts: token weights [B, n] of each part that is summed up by itself.
            valid: bool [B, n], the tokens that are no padding.
            seen: the batch.
            twin: what the layer was given in the dense model, where weights are corrected towards it.

        Raises:
            InputError: a token that counts has a NaN or infinite activation.
        """
        layer = self.layers.setdefault(linear.name, _Layer(linear.full, routed.module))
        for part, weights in parts.items():
            layer.sums.setdefault(part, ExpertSums()).add(layer.full, routed, weights, seen, self.options)
        if self.method.statistics == "hessian":
            layer.tokens.add(routed, valid, [*parts.values(), valid], seen, twin)

    def share_out(self, partition: BatchPartition) -> None:
        """Put the statistics of all processes together."""
        check_same(partition, [layer.full for layer in self.layers.values()])
        for layer in self.layers.values():
            for sums in layer.sums.values():
                sums.share_out(partition)
            layer.tokens.share_out(partition)

    def of(self, linear: Linear) -> dict[int, Statistics]:
        """Statistics of what a matrix of an expert reads, by part; see `StatisticsCollector.of`.

        Raises:
            InputError: its layer was given no token.
        """
        piece = linear.piece
        assert piece is not None
        key = (linear.block, piece.layer, piece.expert, piece.reads_hidden)
        if self._last is None or self._last[0] != key:  # gate and up read the same
            self._last = None  # first, for second moments are large
            self._last = key, self._of(linear, piece)
        return self._last[1]

    def _of(self, linear: Linear, piece: Piece) -> dict[int, Statistics]:
        if piece.layer not in self.layers:
            raise unreached(linear)
        layer = self.layers[piece.layer]
        several = len(layer.sums) > 1
        parts = {part: sums for part, sums in layer.sums.items() if not several or sums.reached}
        if not parts:
            raise unreached(linear)
        tokens = [sums.tokens(piece.expert) for sums in parts.values()]
        few = sum(tokens) < linear.shape[1] or not all(tokens)
        if few or self.method.statistics != "hessian":
            norms = {part: sums.square_norm(linear, piece, self.options) for part, sums in parts.items()}
            return {part: Statistics(sq_norm=norm, weight_sum=mass, few=few) for part, (norm, mass) in norms.items()}
        return self._second_moments(layer, piece, list(parts))

    def _second_moments(self, layer: _Layer, piece: Piece, wanted: list[int]) -> dict[int, Statistics]:
        read = layer.tokens.of(layer.module, piece, self.options)
        tokens, weights, found = read.tokens[None], read.weights, {}
        whole = weights[-1]
        for part, own in zip(layer.sums, weights, strict=False):
            if part in wanted:
                left_out = self.method.blends and not torch.equal(own, whole)
                sums = layer.sums[part]
                squares = (sums.inputs if piece.reads_hidden else sums.activations).total()[piece.expert]
                found[part] = Statistics(
                    sq_norm=squares,
                    weight_sum=float(own.double().sum()),
                    hessian=weighted_gram(tokens, own[None]),
                    hessian_all_tokens=weighted_gram(tokens, whole[None]) if left_out else None,
                    count=float(whole.double().sum()),
                    cross=None if read.twins is None else weighted_cross(read.twins[None], tokens, own[None]),
                )
        return found

    def weight_sum(self, linear: Linear) -> Tensor:
        """Sum of an expert's token weights per modality, float64 [4]."""
        return torch.stack([sums.weight_sum(_piece(linear).expert) for sums in self._sums(linear)]).sum(0)

    def tokens(self, linear: Linear) -> int:
        """How many tokens of its expert counted."""
        return sum(sums.tokens(_piece(linear).expert) for sums in self._sums(linear))

    def _sums(self, linear: Linear) -> list[ExpertSums]:
        return list(self.layers[_piece(linear).layer].sums.values())


def _piece(linear: Linear) -> Piece:
    assert linear.piece is not None
    return linear.piece
