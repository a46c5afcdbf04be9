"""Keeps pruned weights at zero while the others are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from tamp_lightning.errors import InputError


class MaskKeeper(L.Callback):
    """Keeps every weight whose mask bit is off at exactly zero.

    Its gradient is cleared before the optimiser sees it, so that it enters neither the norm that is clipped nor the
    optimiser's moments; and it is set to zero again after every step, whatever the optimiser did.

    Args:
        masks: name of a parameter of the LightningModule -> BoolTensor of its shape, True = kept.

    Raises:
        InputError: when training starts, if the module has no such parameter or one of another shape.
    """

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        self.masks = masks
        self._gone: list[tuple[nn.Parameter, Tensor]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the parameters and bring the masks to their device."""
        parameters = dict(pl_module.named_parameters(remove_duplicate=False))
        self._gone = []
        for name, mask in self.masks.items():
            found = parameters.get(name)
            if found is None or found.shape != mask.shape:
                shape = None if found is None else tuple(found.shape)
                raise InputError(f"mask of {name} has shape {tuple(mask.shape)}, its parameter in training {shape}")
            self._gone.append((found, ~mask.to(found.device)))
        self._zero()

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        """Clear the gradients of pruned weights, before they are clipped."""
        for parameter, gone in self._gone:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(gone, 0)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Clear the pruned weights after the optimiser's step."""
        self._zero()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Clear them for good and let go of the parameters."""
        self._zero()
        self._gone = []

    @torch.no_grad()
    def _zero(self) -> None:
        for parameter, gone in self._gone:
            if parameter.requires_grad:
                parameter.masked_fill_(gone, 0)
