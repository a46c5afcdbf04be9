"""Which mix of modalities serves a block best, judged by what it makes of text in samples that were held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import lightning as L
import torch
from torch import Tensor, nn

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.distributed.together import everyones
from tamp_lightning.errors import InputError
from tamp_lightning.methods.tokens import ModalityMix
from tamp_lightning.ops.drift import TEXT
from tamp_lightning.passes.contract import BlockPass

Solved = dict[Linear, tuple[Tensor, Tensor]]
"""Linear -> its new weight and mask."""


@contextmanager
def swapped(block: nn.Module, weights: Mapping[Linear, Tensor]) -> Iterator[None]:
    """Other weights in a block's linears for as long as the context lasts."""
    parameters = {linear: linear.weight(block) for linear in weights}
    own = {linear: parameter.data for linear, parameter in parameters.items()}
    for linear, parameter in parameters.items():
        parameter.data = weights[linear]
    try:
        yield
    finally:
        for linear, parameter in parameters.items():
            parameter.data = own[linear]


class MixChooser(L.Callback):
    """Prunes the current block once per candidate, and keeps the one with the smallest error.

    Args:
        rule: the candidates, and which samples judge them.
        solve: prunes the current block for a weight of the other modalities; changes nothing.

    Attributes:
        lam: the weight chosen for the current block.
        solved: the block as that weight prunes it.
    """

    def __init__(self, rule: ModalityMix, solve: Callable[[BlockPass, float], Solved]) -> None:
        self.rule, self.solve = rule, solve
        self.lam: float | None = None
        self.solved: Solved | None = None
        self._candidates: dict[float, Solved] = {}
        self._errors: dict[float, dict[int, float]] = {}

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Prune the block in every way."""
        if pl_module.stage == "mix":
            self._candidates = {lam: self.solve(pl_module, lam) for lam in self.rule.lambdas}
            self._errors = {lam: {} for lam in self._candidates}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: BlockPass, *_: object) -> None:
        """Compare what each candidate makes of the held-out samples with what the dense block makes of them."""
        if pl_module.stage != "mix" or pl_module.idle:
            return
        current = pl_module.current
        judges = [row for row, i in enumerate(current.ids.tolist()) if self.rule.judges(i)]
        if not judges:
            return
        text = (current.valid & (current.modality == TEXT))[judges]
        wanted = pl_module.output[judges].double()
        for lam, solved in self._candidates.items():
            with swapped(pl_module.block, {linear: weight for linear, (weight, _) in solved.items()}):
                off = pl_module.run(pl_module.index, current)[judges].double() - wanted
            errors = torch.where(text[..., None], off.square(), 0).sum((1, 2)).tolist()
            self._errors[lam].update(zip(current.ids[judges].tolist(), errors, strict=True))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Choose the smallest error; equal ones: the candidate named first.

        Raises:
            InputError: no sample was held out.
        """
        if pl_module.stage != "mix":
            return
        processes = everyones(pl_module.share, self._errors)
        found = {lam: {i: e for own in processes for i, e in own[lam].items()} for lam in self._errors}
        totals = {lam: sum(errors[i] for i in sorted(errors)) for lam, errors in found.items()}
        if not any(found.values()):
            raise InputError(
                "modality_mix.held_out leaves no calibration sample to judge by: "
                "raise it or calibrate with more samples."
            )
        self.lam = min(totals, key=totals.__getitem__)
        self.solved = self._candidates[self.lam]
        self._candidates, self._errors = {}, {}
