"""Which of several ways of pruning a block serves it best, judged by what it makes of samples that were held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.distributed.collectives import all_gather
from tamp_lightning.errors import InputError
from tamp_lightning.methods.trials import Trial
from tamp_lightning.ops.drift import TEXT
from tamp_lightning.passes.contract import BlockPass, Pass, PassCallback

Solved = dict[Linear, tuple[Tensor, Tensor]]
"""Linear -> its new weight and mask."""


@dataclass(frozen=True)
class Choice:
    """How a block is pruned."""

    value: float
    """What was chosen."""
    solved: Solved
    """The block as that prunes it."""


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
        trial: the candidates, and which samples judge them.
        solve: prunes the current block as a candidate says; changes nothing.
    """

    def __init__(self, trial: Trial, solve: Callable[[BlockPass, float], Solved]) -> None:
        self.trial, self.solve = trial, solve
        self._choice: Choice | None = None
        self._candidates: dict[float, Solved] = {}
        self._errors: dict[float, dict[int, Tensor]] = {}

    def choice(self) -> Choice:
        """What serves the current block best, once its pass is over."""
        assert self._choice is not None
        return self._choice

    def wanted(self, now: Pass) -> bool:
        """The pass that compares them."""
        return now.stage == "mix"

    def pass_starts(self, pl_module: BlockPass) -> None:
        """Prune the block in every way."""
        self._candidates = {value: self.solve(pl_module, value) for value in self.trial.values}
        self._errors = {value: {} for value in self._candidates}

    @torch.no_grad()
    def batch_passed(self, pl_module: BlockPass, batch: object, batch_idx: int) -> None:
        """Compare what each candidate makes of the held-out samples with what the dense block makes of them."""
        current = pl_module.current
        judges = [row for row, i in enumerate(current.ids.tolist()) if self.trial.judges(i)]
        if not judges:
            return
        counted = current.counted & (current.modality == TEXT) if self.trial.by_text else current.counted
        wanted = pl_module.output[judges].double()
        for value, solved in self._candidates.items():
            with swapped(pl_module.block, {linear: weight for linear, (weight, _) in solved.items()}):
                off = pl_module.run(pl_module.index, current)[judges].double() - wanted
            errors = torch.where(counted[judges][..., None], off.square(), 0).sum((1, 2))
            self._errors[value].update(zip(current.ids[judges].tolist(), errors, strict=True))

    def pass_ends(self, pl_module: BlockPass) -> None:
        """Choose the smallest error; equal ones: the candidate named first.

        Raises:
            InputError: no sample was held out.
        """
        own = {value: {i: float(error) for i, error in errors.items()} for value, errors in self._errors.items()}
        processes = all_gather(pl_module.partition, own)
        found = {value: {i: e for other in processes for i, e in other[value].items()} for value in own}
        totals = {value: sum(errors[i] for i in sorted(errors)) for value, errors in found.items()}
        if not any(found.values()):
            raise InputError(
                f"{self.trial.section}.held_out leaves no calibration sample to judge by: "
                "raise it or calibrate with more samples."
            )
        best = min(totals, key=totals.__getitem__)
        self._choice = Choice(best, self._candidates[best])
        self._candidates, self._errors = {}, {}
