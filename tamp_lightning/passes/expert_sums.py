"""Sums over the tokens that were routed to each expert of a layer, and those tokens themselves for second moments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from tamp_lightning.checkpoint.linear import Linear, Piece
from tamp_lightning.compat.experts import activated, projected
from tamp_lightning.distributed.collectives import all_gather, gather_by_id
from tamp_lightning.distributed.partition import BatchPartition
from tamp_lightning.distributed.sums import SampleSum
from tamp_lightning.methods.options import Experts
from tamp_lightning.ops.diversity import MODALITIES
from tamp_lightning.ops.routing import shrunk, square_sums
from tamp_lightning.passes.callbacks.tokens import check_finite, unreached
from tamp_lightning.passes.routing import Routed


@dataclass(frozen=True)
class Seen:
    """What is known of a batch."""

    ids: Tensor
    """[B] int64."""
    modality: Tensor
    """[B, n] int64."""
    alone: bool
    """Whether this process has all samples."""


@dataclass
class ExpertSums:
    """Of one layer of experts: sums by sample, so that neither order nor batches matter.

    A process that has all samples adds them up as they come; several keep theirs apart until `share_out`.
    """

    inputs: SampleSum = field(default_factory=SampleSum)
    """float64 [E, h]: sum of w x^2 over each expert's tokens."""
    activations: SampleSum = field(default_factory=SampleSum)
    """float64 [E, f]: the same of what each `down_proj` reads."""
    masses: SampleSum = field(default_factory=SampleSum)
    """float64 [E, 5]: sum of w per modality, and number of tokens with w > 0."""

    def add(self, layer: str, routed: Routed, weights: Tensor, seen: Seen, options: Experts) -> None:
        """Add a batch's samples.

        Args:
            layer: full name of the layer of experts, for messages.
            routed: what it was given.
            weights: [B, n], bool or float, of the token rule.
            seen: the batch.
            options: whether gates weigh tokens.

        Raises:
            InputError: a token that counts has a NaN or infinite activation.
        """
        module, size = routed.module, len(seen.ids)
        own, modality = weights.flatten()[routed.places], seen.modality.flatten()[routed.places]
        rows: list[list[Tensor]] = [[], [], []]
        for expert, tokens, gates in routed.visits(weights != 0):
            samples, weight = routed.samples[tokens], own[tokens].double()
            factor = weight * gates.double().square() if options.gate_weighted else weight
            hidden = routed.hidden[tokens]
            activation = activated(module, projected(module, expert, hidden))
            for found, values, name in zip(rows, (hidden, activation), ("gate_proj", "down_proj"), strict=False):
                found.append(square_sums(values, factor, samples, size))
                check_finite(f"{layer}.{expert}.{name}", "inputs", found[-1].isfinite().all(1), seen.ids)
            rows[2].append(_masses(weight, samples, modality[tokens], size))
        for sums, found in zip((self.inputs, self.activations, self.masses), rows, strict=True):
            for sample, row in zip(seen.ids.tolist(), torch.stack(found, 1).cpu(), strict=True):
                sums.add(sample, row, seen.alone)

    def share_out(self, partition: BatchPartition) -> None:
        """Put the samples of all processes together."""
        for sums in (self.inputs, self.activations, self.masses):
            sums.samples = gather_by_id(partition, sums.samples)

    @property
    def reached(self) -> bool:
        """Whether any expert was given a token that counts."""
        return bool(self.masses.total()[:, -1].any())

    def weight_sum(self, expert: int) -> Tensor:
        """Sum of one expert's token weights per modality, float64 [4]."""
        return self.masses.total()[expert, : len(MODALITIES)]

    def tokens(self, expert: int) -> int:
        """How many tokens of an expert counted."""
        return int(self.masses.total()[expert, -1])

    def square_norm(self, linear: Linear, piece: Piece, options: Experts) -> tuple[Tensor, float]:
        """Sum of w x^2 [c] of a matrix, drawn towards the mean over all experts, and the mass behind it.

        Raises:
            InputError: no expert of the layer was given a token.
        """
        sums = (self.inputs if piece.reads_hidden else self.activations).total()
        masses = self.masses.total()[:, : len(MODALITIES)].sum(1)
        everything = float(masses.sum())
        if everything == 0:
            raise unreached(linear)
        mean = sums.sum(0) / everything
        return shrunk(sums[piece.expert], float(masses[piece.expert]), mean, options.shrink)


def _masses(weight: Tensor, samples: Tensor, modality: Tensor, size: int) -> Tensor:
    """Sum of token weights per modality, and number of tokens, of each sample: float64 [size, 5]."""
    width = len(MODALITIES) + 1
    found = torch.bincount(samples * width + modality, weight, size * width).double().reshape(size, width)
    found[:, -1] = torch.bincount(samples, minlength=size)
    return found


class Read(NamedTuple):
    """What one matrix of an expert reads."""

    tokens: Tensor
    """[m, c]."""
    weights: list[Tensor]
    """[m] in each part of the tokens."""
    twins: Tensor | None
    """[m, c]: the same, had the expert been given these tokens in the dense model; None where nobody asked."""


@dataclass
class ExpertTokens:
    """Of one layer of experts: what every token was, kept on the CPU until the block is pruned.

    Second moments of all experts at once would take [c, c] for each: 2.5 GB in a block of Qwen3-VL-30B-A3B. From the
    tokens, which take as much as the hidden states between two blocks, they are made one at a time.
    """

    samples: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    """Sample id -> hidden [m, h], experts [m, k], their weights [m, k], then token weights [m] of each part."""
    twins: dict[int, Tensor] = field(default_factory=dict)
    """Sample id -> hidden [m, h] of the same tokens in the dense model, where weights are corrected towards it."""

    def add(self, routed: Routed, valid: Tensor, parts: list[Tensor], seen: Seen, twin: Routed | None = None) -> None:
        """Keep the tokens [B, n] of a batch that are no padding, with the weights [B, n] of each part."""
        kept = valid.flatten()[routed.places]
        weights = [part.flatten()[routed.places].float() for part in parts]
        for row, sample in enumerate(seen.ids.tolist()):
            own = kept & (routed.samples == row)
            values = (routed.hidden, routed.index, routed.gates, *weights)
            self.samples[sample] = tuple(value[own].cpu() for value in values)
            if twin is not None:  # a layer is given the same tokens in both, whichever experts they are sent to
                self.twins[sample] = twin.hidden[own].cpu()

    def share_out(self, partition: BatchPartition) -> None:
        """Bring the samples of all processes together."""
        self.samples = {i: row for own in all_gather(partition, self.samples) for i, row in own.items()}
        self.twins = {i: row for own in all_gather(partition, self.twins) for i, row in own.items()}

    def of(self, module: torch.nn.Module, piece: Piece, options: Experts) -> Read:
        """What one matrix of an expert reads of all samples.

        Args:
            module: the layer, with the weights that it had in the pass.
            piece: which matrix.
            options: whether gates weigh tokens.
        """
        hidden, dense, weights = [], [], []
        for sample in sorted(self.samples):
            tokens, index, gates, *parts = self.samples[sample]
            rows, slots = (index == piece.expert).nonzero(as_tuple=True)
            factor = gates[rows, slots].float().square() if options.gate_weighted else 1.0
            hidden.append(tokens[rows])
            weights.append([part[rows] * factor for part in parts])
            if sample in self.twins:
                dense.append(self.twins[sample][rows])
        device = module.get_parameter("down_proj").device

        def read(tokens: list[Tensor]) -> Tensor:
            joined = torch.cat(tokens).to(device)
            return joined if piece.reads_hidden else activated(module, projected(module, piece.expert, joined))

        joined = [torch.cat(part).to(device) for part in zip(*weights, strict=True)]
        return Read(read(hidden), joined, read(dense) if dense else None)
