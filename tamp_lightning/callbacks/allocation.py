"""The budget of every linear: measured where the method needs data, known at once where it does not."""

from __future__ import annotations

import lightning as L
import torch
from torch import Tensor

from tamp_lightning.callbacks.contract import BlockPass
from tamp_lightning.callbacks.tokens import TokenCollector, check_finite, unreached
from tamp_lightning.methods.allocation import Das
from tamp_lightning.methods.method import Method


class AllocationCallback(L.Callback):
    """Scores every linear during the measure walk, then shares the budget among them (`BlockPass.plan`).

    Attributes:
        scores: diversity of each linear by full name; empty if the method needs no measuring.
        cosines: [4,4] mean cosine between modalities behind each score, NaN where a pair has no tokens.
    """

    def __init__(self, method: Method, collector: TokenCollector) -> None:
        self.method, self.collector = method, collector
        self.scores: dict[str, float] = {}
        self.cosines: dict[str, Tensor] = {}
        self._samples: dict[str, dict[int, Tensor]] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Allocate now if no measure walk is needed."""
        if not self.method.allocation_rule.needs_measure:
            self._allocate(pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: BlockPass, *_: object) -> None:
        """Keep the cosines of each sample, by sample id, so that neither order nor padding matters.

        Raises:
            ValueError: a linear's output is NaN or infinite on a token that counts.
        """
        rule = self.method.allocation_rule
        if pl_module.walk != "measure" or not isinstance(rule, Das):
            return
        current = pl_module.current
        for name, tokens in self.collector.tokens.items():
            full = pl_module.stream.facts.linear_name(pl_module.index, name)
            finite = tokens.outputs.isfinite().all(-1) | ~current.valid
            check_finite(full, "outputs", finite.all(-1), current.ids)
            cosines = rule.score(tokens.outputs, current.modality, current.valid).cpu()
            self._samples.setdefault(name, {}).update(zip(current.ids.tolist(), cosines, strict=True))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Score the block's linears; after the last block, allocate.

        Raises:
            ValueError: a linear was not reached by any token, or no sample has two tokens to compare.
        """
        rule = self.method.allocation_rule
        if pl_module.walk != "measure" or not isinstance(rule, Das):
            return
        facts = pl_module.stream.facts
        for name in facts.linears[pl_module.index]:
            full, samples = facts.linear_name(pl_module.index, name), self._samples.get(name)
            if not samples:
                raise unreached(full)
            cosines = torch.stack([samples[i] for i in sorted(samples)])
            self.scores[full] = rule.combine(cosines)
            self.cosines[full] = cosines.double().nanmean(0)
        self._samples.clear()
        if pl_module.index == len(facts.linears) - 1:
            self._allocate(pl_module)

    def _allocate(self, pl_module: BlockPass) -> None:
        stream = pl_module.stream
        sizes = {
            (full := stream.facts.linear_name(k, name)): stream.model.get_parameter(f"{full}.weight").numel()
            for k, names in enumerate(stream.facts.linears)
            for name in names
        }
        pl_module.plan = self.method.allocation_rule.kept(sizes, self.method.sparsity, self.scores or None)
