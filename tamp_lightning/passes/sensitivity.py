"""How much the language-model loss answers to noise in a linear, with forward passes only (ECoFLaP)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tamp_lightning.checkpoint.head import head_logits
from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.errors import InputError
from tamp_lightning.methods.allocation import Ecoflap
from tamp_lightning.ops.drift import TEXT
from tamp_lightning.ops.zeroth_order import gradient_estimate, perturbed, sensitivity
from tamp_lightning.passes.callbacks.mixing import swapped
from tamp_lightning.passes.contract import BlockPass, TokenSource
from tamp_lightning.passes.measuring import SampleRows

SPREAD = 1_000_003
"""A prime, so that seeds of neighbouring linears and samples differ."""


class LossMeter:
    """Runs each batch again from the current block on, with noise in one of its linears, once per sign.

    The hidden state before the block is cached, so blocks before it need not run. All blocks from the current one
    on are in memory. The samples of a batch share their noise: with batches of one sample it is the paper's method.
    """

    def __init__(self, rule: Ecoflap, source: TokenSource) -> None:
        self.rule = rule
        self.cosines: dict[str, Tensor] = {}
        self._rows = SampleRows()
        self._tokens: dict[int, Tensor] = {}
        self._used: set[int] = set()

    def look(self, pl_module: BlockPass, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Slope of each sample's loss along the noise, for every linear of the block.

        Raises:
            InputError: the model's inputs are not token ids, one for each hidden state.
        """
        self.skip(pl_module, batch, batch_idx)
        if batch_idx not in self._tokens:
            return
        current, block = pl_module.current, pl_module.block
        for linear in pl_module.stream.facts.linears[pl_module.index]:
            clean = linear.weight(block).detach()
            seed = self._seed(pl_module, linear, int(current.ids[0]))
            losses = []
            for step in (self.rule.eps, -self.rule.eps):
                with swapped(block, {linear: perturbed(clean, seed, step)}):
                    losses.append(self._losses(pl_module, self._tokens[batch_idx]))
            self._rows.add(linear, current.ids, gradient_estimate(losses[0], losses[1], self.rule.eps))

    def skip(self, pl_module: BlockPass, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Keep the token ids of the samples that count; before the first block only, where the batch has them."""
        if pl_module.index == 0:
            self._take_ids(pl_module, batch, batch_idx)

    def _take_ids(self, pl_module: BlockPass, batch: dict[str, Tensor], batch_idx: int) -> None:
        if pl_module.samples_ahead + len(self._used) >= self.rule.samples:
            return
        ids, shape = batch.get("input_ids"), pl_module.current.counted.shape
        if ids is None or ids.shape != shape:
            raise InputError("ecoflap needs input_ids with one id per token of the decoder: choose another allocation.")
        self._tokens[batch_idx] = ids
        self._used.update(pl_module.current.ids.tolist())

    def _seed(self, pl_module: BlockPass, linear: Linear, sample: int) -> int:
        number = pl_module.stream.facts.all_linears.index(linear)
        return ((self.rule.seed * SPREAD + number) * SPREAD + sample) % 2**63

    def _losses(self, pl_module: BlockPass, ids: Tensor) -> Tensor:
        """Mean next-token cross-entropy of each sample [B] over its text, from the current block on."""
        batch = pl_module.current
        for index in range(pl_module.index, len(pl_module.stream.facts.linears)):
            batch = batch.advanced(pl_module.run(index, batch))
        wanted = (batch.counted & (batch.modality == TEXT))[:, 1:]
        rows = wanted.nonzero()[:, 0]
        model, blocks = pl_module.stream.model, pl_module.stream.facts.blocks
        logits = head_logits(model, blocks, batch.hidden[:, :-1][wanted]).float()
        found = nn.functional.cross_entropy(logits, ids.to(logits.device)[:, 1:][wanted], reduction="none").double()
        totals = torch.zeros(len(batch.ids), dtype=found.dtype, device=found.device).index_add_(0, rows, found)
        return totals / wanted.sum(1).clamp(min=1)

    def scores(self, pl_module: BlockPass) -> dict[str, float]:
        """Sum over samples of the absolute slope, for each linear.

        Raises:
            InputError: a slope is NaN or infinite.
        """
        linears = pl_module.stream.facts.linears[pl_module.index]
        return {linear.full: sensitivity(self._rows.take(pl_module, linear)) for linear in linears}
