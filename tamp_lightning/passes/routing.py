"""What a layer of experts was given in one batch, and what it made of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor, nn

from tamp_lightning.compat.experts import Call, expert_count
from tamp_lightning.errors import InputError
from tamp_lightning.ops.routing import by_expert


class Visit(NamedTuple):
    """The tokens of one batch that were routed to one expert, in their order."""

    expert: int
    rows: Tensor
    """[m] int64: which of the layer's rows they are."""
    gates: Tensor
    """[m]: weight of the expert in each token's output."""


@dataclass(frozen=True)
class Routed:
    """A call of a layer of experts."""

    module: nn.Module
    hidden: Tensor
    """[m, h]: what experts read: tokens of the batch, all or those of one modality, or pairs of token and expert."""
    index: Tensor
    """[m, k]: experts of each row."""
    gates: Tensor
    """[m, k]: their weights."""
    places: Tensor
    """[m] int64, ascending: which of the batch's B * n tokens each is."""
    outputs: Tensor
    """[B, n, h]: what it gave; 0 for tokens that it was not given."""

    @classmethod
    def of(cls, name: str, module: nn.Module, call: Call, meant: Tensor) -> Routed:
        """From a call.

        Args:
            name: of the layer, for messages.
            module: the layer.
            call: what it was given and what it gave.
            meant: bool [B, n]: the tokens that the layer is given.

        Raises:
            InputError: it was given others.
        """
        places, count = meant.flatten().nonzero()[:, 0], len(call.output)
        if len(places) != count or not len(call.tokens) == len(call.chosen) == len(call.gates):
            raise InputError(
                f"{name} was given {count} tokens where {len(places)} were expected, so that it is not known "
                f"which they are: leave its experts dense with exclude: ['{name.rpartition('.')[2]}\\.']"
            )
        whole = call.output.new_zeros(meant.numel(), call.output.shape[-1]).index_copy_(0, places, call.output)
        outputs = whole.reshape(*meant.shape, -1)
        return cls(module, call.hidden, call.chosen, call.gates, places[call.tokens], outputs)

    @cached_property
    def samples(self) -> Tensor:
        """[m] int64: row of the batch that each token stands in."""
        return self.places // self.outputs.shape[1]

    def visits(self, counts: Tensor) -> Iterator[Visit]:
        """Every expert with those of its tokens that count, none of them too.

        Args:
            counts: bool [B, n].
        """
        order, bounds = self._sorted
        wanted, width = counts.flatten()[self.places], self.index.shape[1]
        gates = self.gates.flatten()
        for expert in range(len(bounds) - 1):
            pairs = order[bounds[expert] : bounds[expert + 1]]
            pairs = pairs[wanted[pairs // width]]
            yield Visit(expert, pairs // width, gates[pairs])

    @cached_property
    def _sorted(self) -> tuple[Tensor, list[int]]:
        return by_expert(self.index, expert_count(self.module))
