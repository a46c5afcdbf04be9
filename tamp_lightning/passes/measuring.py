"""Scores of the linears during the measure walk: one meter per kind of thing that an allocation looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.distributed.collectives import check_same, gather_by_id
from tamp_lightning.errors import InputError
from tamp_lightning.methods.allocation import Das
from tamp_lightning.methods.options import Experts
from tamp_lightning.ops.diversity import pairs_present
from tamp_lightning.ops.scores import wanda
from tamp_lightning.ops.stats import weighted_square_sum
from tamp_lightning.passes.callbacks.tokens import check_finite, unreached
from tamp_lightning.passes.contract import BlockPass, TokenSource
from tamp_lightning.passes.expert_cosines import expert_cosines
from tamp_lightning.passes.expert_sums import ExpertSums, Seen


class Meter(Protocol):
    """Looks at every batch of a pass over a dense block, then scores the block's linears."""

    cosines: dict[str, Tensor]
    """[4,4] mean cosine between modalities behind each score, by full name; empty where that is not what counts."""

    def look(self, pl_module: BlockPass, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Take in what the current block just did to a batch; `batch` holds the model's inputs in the first pass."""

    def skip(self, pl_module: BlockPass, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Note what later blocks need of a batch; the current block was scored by an earlier run."""

    def scores(self, pl_module: BlockPass) -> dict[str, float]:
        """Score of each linear of the current block, by full name, after its last batch."""


class BlockRule(Protocol):
    """An allocation that scores whole blocks."""

    def block_score(self, parts: Sequence[Tensor], /) -> float:
        """Score of a block from one matrix per linear."""


class SampleRows:
    """Whatever is known of a linear per sample, in the order of sample ids."""

    def __init__(self) -> None:
        self._rows: dict[Linear, dict[int, Tensor]] = {}

    def add(self, linear: Linear, ids: Tensor, rows: Tensor) -> None:
        """Keep one row per sample, where it is: a copy to the CPU would wait for the device, batch by batch."""
        self._rows.setdefault(linear, {}).update(zip(ids.tolist(), rows, strict=True))

    def own(self, linear: Linear) -> tuple[Tensor, Tensor]:
        """Ids [samples] and rows of this process's samples [samples, ...], on the CPU; empty if there are none."""
        rows = self._rows.get(linear, {})
        return torch.tensor(list(rows)), torch.stack(list(rows.values())).cpu() if rows else torch.empty(0)

    def take(self, pl_module: BlockPass, linear: Linear) -> Tensor:
        """Rows of all processes' samples [samples, ...], which are then forgotten.

        Raises:
            InputError: no token reached the linear.
        """
        ids, own = self.own(linear)
        self._rows.pop(linear, None)
        rows = gather_by_id(pl_module.partition, dict(zip(ids.tolist(), own, strict=True)))
        if not rows:
            raise unreached(linear)
        return torch.stack([rows[i] for i in sorted(rows)])


class OutputMeter:
    """How much the output tokens of a linear differ (DAS)."""

    def __init__(self, rule: Das, source: TokenSource, experts: Experts | None = None) -> None:
        self.rule, self.source = rule, source
        self.cosines: dict[str, Tensor] = {}
        self._rows, self._lost = SampleRows(), SampleRows()

    def look(self, pl_module: BlockPass, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Keep the cosines of each sample, by sample id, so that neither order nor padding matters."""
        current = pl_module.current
        present = pairs_present(current.modality, current.counted)
        for linear, tokens in self.source.latest().items():
            rows = self.rule.score(tokens.outputs, current.modality, current.counted)
            self._lost.add(linear, current.ids, (rows.isnan() & present).flatten(1).any(1))
            self._rows.add(linear, current.ids, rows)
        for layer, routed in self.source.routed().items():
            both = expert_cosines(layer.full, routed, self.rule, (current.ids, current.modality, current.counted))
            for reads_hidden, rows in zip((True, False), both, strict=True):
                self._rows.add(_side(layer, reads_hidden), current.ids, rows)

    def skip(self, pl_module: BlockPass, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Do nothing: blocks are scored by themselves."""

    def scores(self, pl_module: BlockPass) -> dict[str, float]:
        """Diversity of each linear; experts have one for all that read the layer's input and one for `down_proj`.

        Raises:
            InputError: a linear was not reached by any token, or no sample has two tokens to compare; or an output is
                NaN, infinite or too large to square on a token that counts.
        """
        found: dict[str, float] = {}
        for shared, linears in _scored_together(pl_module.stream.facts.linears[pl_module.index]).items():
            ids, lost = self._lost.own(shared)
            check_finite(linears[0].full, "outputs (or squares of them)", ~lost.bool(), ids)
            cosines = self._rows.take(pl_module, shared)
            try:
                found |= dict.fromkeys((linear.full for linear in linears), self.rule.combine(cosines))
            except InputError as error:
                raise InputError(f"{linears[0].full}: {error}") from None
            mean = cosines.double().nanmean(0)
            self.cosines |= {linear.full: mean.clone() for linear in linears}  # each is noted by itself
        return found


def _side(layer: Linear, reads_hidden: bool) -> Linear:
    """Stands for all matrices of a layer of experts that read its input, or for all that do not."""
    kind = "in" if reads_hidden else "down"
    return Linear(layer.block, f"{layer.name}.{kind}", f"{layer.full}.{kind}", (0, 0))


def _scored_together(linears: Sequence[Linear]) -> dict[Linear, list[Linear]]:
    found: dict[Linear, list[Linear]] = {}
    for linear in linears:
        key, piece = linear, linear.piece
        if piece is not None:
            full = linear.full.removesuffix(linear.name) + piece.layer
            key = _side(Linear(linear.block, piece.layer, full, (0, 0)), piece.reads_hidden)
        found.setdefault(key, []).append(linear)
    return found


class InputMeter:
    """Wanda scores of whole blocks, from the norms of what their linears read (OWL, DLP)."""

    def __init__(self, rule: BlockRule, source: TokenSource, experts: Experts | None = None) -> None:
        self.rule, self.source, self.options = rule, source, experts or Experts()
        self.cosines: dict[str, Tensor] = {}
        self._rows = SampleRows()
        self._experts: dict[str, ExpertSums] = {}

    def look(self, pl_module: BlockPass, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Keep the squared norms of each sample."""
        current = pl_module.current
        found: dict[int, Tensor] = {}
        for linear, tokens in self.source.latest().items():
            if id(tokens.inputs) not in found:
                found[id(tokens.inputs)] = weighted_square_sum(tokens.inputs, current.counted)
            self._rows.add(linear, current.ids, found[id(tokens.inputs)])
        seen = Seen(current.ids, current.modality, pl_module.partition.processes == 1)
        for layer, routed in self.source.routed().items():
            sums = self._experts.setdefault(layer.name, ExpertSums())
            sums.add(layer.full, routed, current.counted, seen, self.options)

    def skip(self, pl_module: BlockPass, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Do nothing: blocks are scored by themselves."""

    def scores(self, pl_module: BlockPass) -> dict[str, float]:
        """The block's score, for each of its linears.

        Raises:
            InputError: a linear was not reached by any token, an activation of a token that counts is NaN or infinite,
                or a score is.
        """
        linears, block = pl_module.stream.facts.linears[pl_module.index], pl_module.block
        if not linears:
            return {}
        for linear in linears:
            ids, rows = self._rows.own(linear)
            check_finite(linear.full, "inputs", rows.flatten(1).isfinite().all(1) if len(rows) else rows.bool(), ids)
        weights = [linear.weight(block) for linear in linears]
        check_same(pl_module.partition, list(self._experts))
        for sums in self._experts.values():
            sums.share_out(pl_module.partition)
        norms = [self._norm(pl_module, linear) for linear in linears]
        self._experts.clear()
        score = self.rule.block_score([wanda(w.detach(), n) for w, n in zip(weights, norms, strict=True)])
        return dict.fromkeys((linear.full for linear in linears), score)

    def _norm(self, pl_module: BlockPass, linear: Linear) -> Tensor:
        piece = linear.piece
        if piece is None:
            return self._rows.take(pl_module, linear).sum(0)
        if piece.layer not in self._experts:
            raise unreached(linear)
        return self._experts[piece.layer].square_norm(linear, piece, self.options)[0]
