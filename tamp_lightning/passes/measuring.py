"""Scores of the linears during the measure walk: one meter per kind of thing that an allocation looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.distributed.collectives import gather_by_id
from tamp_lightning.errors import InputError
from tamp_lightning.methods.allocation import Das
from tamp_lightning.ops.diversity import pairs_present
from tamp_lightning.ops.scores import wanda
from tamp_lightning.ops.stats import weighted_square_sum
from tamp_lightning.passes.callbacks.tokens import check_finite, unreached
from tamp_lightning.passes.contract import BlockPass, TokenSource


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

    def __init__(self, rule: Das, source: TokenSource) -> None:
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

    def skip(self, pl_module: BlockPass, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Do nothing: blocks are scored by themselves."""

    def scores(self, pl_module: BlockPass) -> dict[str, float]:
        """Diversity of each linear.

        Raises:
            InputError: a linear was not reached by any token, or no sample has two tokens to compare; or an output is
                NaN, infinite or too large to square on a token that counts.
        """
        found = {}
        for linear in pl_module.stream.facts.linears[pl_module.index]:
            ids, lost = self._lost.own(linear)
            check_finite(linear.full, "outputs (or squares of them)", ~lost.bool(), ids)
            cosines = self._rows.take(pl_module, linear)
            try:
                found[linear.full] = self.rule.combine(cosines)
            except InputError as error:
                raise InputError(f"{linear.full}: {error}") from None
            self.cosines[linear.full] = cosines.double().nanmean(0)
        return found


class InputMeter:
    """Wanda scores of whole blocks, from the norms of what their linears read (OWL, DLP)."""

    def __init__(self, rule: BlockRule, source: TokenSource) -> None:
        self.rule, self.source = rule, source
        self.cosines: dict[str, Tensor] = {}
        self._rows = SampleRows()

    def look(self, pl_module: BlockPass, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Keep the squared norms of each sample."""
        current = pl_module.current
        found: dict[int, Tensor] = {}
        for linear, tokens in self.source.latest().items():
            if id(tokens.inputs) not in found:
                found[id(tokens.inputs)] = weighted_square_sum(tokens.inputs, current.counted)
            self._rows.add(linear, current.ids, found[id(tokens.inputs)])

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
        norms = [self._rows.take(pl_module, linear).sum(0) for linear in linears]
        score = self.rule.block_score([wanda(w.detach(), n) for w, n in zip(weights, norms, strict=True)])
        return dict.fromkeys((linear.full for linear in linears), score)
