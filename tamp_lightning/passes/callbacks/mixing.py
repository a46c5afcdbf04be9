"""Which mix of modalities serves a block best, judged by what it makes of text in samples that were held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.distributed.collectives import all_gather
from tamp_lightning.errors import InputError
from tamp_lightning.methods.tokens import ModalityMix
from tamp_lightning.ops.drift import TEXT
from tamp_lightning.passes.contract import BlockPass, Pass, PassCallback

Solved = dict[Linear, tuple[Tensor, Tensor]]
"""Linear -> its new weight and mask."""


@dataclass(frozen=True)
class Choice:
    """How a block is pruned."""

    lam: float
    """The weight of the other modalities that was chosen."""
    solved: Solved
    """The block as that weight prunes it."""


@contextmanager
def swapped(block: nn.Module, weights: Mapping[Linear, Tensor]) -> Iterator[None]:
    """Other weights in a block's linears for as long as the context lasts."""
    parameters = {linear: linear.weight(block) for linear in weights}
    own = {n: w.data if n.piece is None else w.detach().clone() for n, w in parameters.items()}
    _put(parameters, weights)
    try:
        yield
    finally:
        _put(parameters, own)


def _put(parameters: Mapping[Linear, Tensor], weights: Mapping[Linear, Tensor]) -> None:
    """Exchange whole parameters, and overwrite what is a part of one."""
    for linear, parameter in parameters.items():
        if linear.piece is None:
            parameter.data = weights[linear]
        else:
            parameter.data.copy_(weights[linear])


class MixChooser(PassCallback):
    """Prunes the current block once per candidate, and keeps the one with the smallest error.

    Args:
        rule: the candidates, and which samples judge them.
        solve: prunes the current block for a weight of the other modalities; changes nothing.
    """

    def __init__(self, rule: ModalityMix, solve: Callable[[BlockPass, float], Solved]) -> None:
        self.rule, self.solve = rule, solve
        self._choice: Choice | None = None
        self._candidates: dict[float, Solved] = {}
        self._errors: dict[float, dict[int, Tensor]] = {}

    def choice(self) -> Choice:
        """What serves the current block best, once its pass is over."""
        assert self._choice is not None
        return self._choice

    def wanted(self, now: Pass) -> bool:
        """The pass that compares mixes."""
        return now.stage == "mix"

    def pass_starts(self, pl_module: BlockPass) -> None:
        """Prune the block in every way."""
        self._candidates = {lam: self.solve(pl_module, lam) for lam in self.rule.lambdas}
        self._errors = {lam: {} for lam in self._candidates}

    @torch.no_grad()
    def batch_passed(self, pl_module: BlockPass, batch: object, batch_idx: int) -> None:
        """Compare what each candidate makes of the held-out samples with what the dense block makes of them."""
        current = pl_module.current
        judges = [row for row, i in enumerate(current.ids.tolist()) if self.rule.judges(i)]
        if not judges:
            return
        text = (current.counted & (current.modality == TEXT))[judges]
        wanted = pl_module.output[judges].double()
        for lam, solved in self._candidates.items():
            with swapped(pl_module.block, {linear: weight for linear, (weight, _) in solved.items()}):
                off = pl_module.run(pl_module.index, current)[judges].double() - wanted
            errors = torch.where(text[..., None], off.square(), 0).sum((1, 2))
            self._errors[lam].update(zip(current.ids[judges].tolist(), errors, strict=True))

    def pass_ends(self, pl_module: BlockPass) -> None:
        """Choose the smallest error; equal ones: the candidate named first.

        Raises:
            InputError: no sample was held out.
        """
        own = {lam: {i: float(error) for i, error in errors.items()} for lam, errors in self._errors.items()}
        processes = all_gather(pl_module.partition, own)
        found = {lam: {i: e for other in processes for i, e in other[lam].items()} for lam in own}
        totals = {lam: sum(errors[i] for i in sorted(errors)) for lam, errors in found.items()}
        if not any(found.values()):
            raise InputError(
                "modality_mix.held_out leaves no calibration sample to judge by: "
                "raise it or calibrate with more samples."
            )
        lam = min(totals, key=totals.__getitem__)
        self._choice = Choice(lam, self._candidates[lam])
        self._candidates, self._errors = {}, {}
