"""The LightningModule of sparse finetuning, in ordinary automatic optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, get_cosine_schedule_with_warmup

from tamp_lightning.config.finetune import Schedule
from tamp_lightning.data.packing import IGNORE
from tamp_lightning.errors import InputError
from tamp_lightning.finetune.losses import Answers, Distillation
from tamp_lightning.passes.callbacks.keep_mask import MaskKeeper


def choose_trainable(model: PreTrainedModel, train: str, blocks: str) -> None:
    """Freeze everything but the decoder blocks ("blocks"), the language model ("decoder") or nothing ("all").

    A module without trainable parameters is put in eval mode, so that a frozen tower has no dropout.
    """
    language = [*model.get_decoder().parameters(), *model.get_output_embeddings().parameters()]
    chosen = {"blocks": model.get_submodule(blocks).parameters(), "decoder": language, "all": model.parameters()}
    model.requires_grad_(False)
    for parameter in chosen[train]:
        parameter.requires_grad_(True)
    set_modes(model)


def set_modes(model: nn.Module) -> None:
    """Train mode where something is trained, eval mode elsewhere."""
    for module in model.modules():
        module.training = any(p.requires_grad for p in module.parameters())


class FinetuneModule(L.LightningModule):
    """Trains the parameters of a model that require gradients; brings the callback that keeps pruned ones at zero.

    Args:
        model: the sparse model; frozen parameters do not enter checkpoints.
        objective: gives `loss` and parts of it worth logging.
        schedule: steps, warm-up, weight decay.
        rate: peak learning rate.
        masks: parameter of this module -> mask (`callbacks.keep_mask.MaskKeeper`).
        identity: what a checkpoint has to agree with to be resumed: plain values only.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        objective: Answers | Distillation,
        schedule: Schedule,
        rate: float,
        masks: Mapping[str, Tensor],
        identity: dict[str, Any],
    ) -> None:
        super().__init__()
        self.model, self.objective, self.schedule, self.rate = model, objective, schedule, rate
        self.masks, self.identity = masks, identity
        self.strict_loading = False
        self.history: list[float] = []
        """Held-out loss at every look, the one before training included."""

    def configure_callbacks(self) -> list[L.Callback]:
        """What keeps zeros at zero."""
        return [MaskKeeper(self.masks)]

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """The objective's loss."""
        parts = self.objective(self.model, batch)
        self.log_dict({name: value.detach() for name, value in parts.items()}, prog_bar=True)
        return parts["loss"]

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        """The same on what is held out; every answer token weighs the same."""
        tokens = int((batch["labels"] != IGNORE).sum())
        parts = {f"held_out_{name}": value for name, value in self.objective(self.model, batch).items()}
        self.log_dict(parts, prog_bar=True, sync_dist=True, batch_size=tokens)

    def on_validation_epoch_end(self) -> None:
        """Remember the held-out loss."""
        self.history.append(float(self.trainer.callback_metrics["held_out_loss"]))

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with decay on matrices, linear warm-up and a cosine to zero."""
        trained = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.dim() >= 2], "weight_decay": self.schedule.weight_decay},
            {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=self.rate, fused=True)
        schedule = get_cosine_schedule_with_warmup(optimizer, self.schedule.warmup, self.schedule.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        """Limit the norm of all gradients; Lightning's own way refuses fused optimisers in mixed precision."""
        if self.schedule.clip:
            nn.utils.clip_grad_norm_([p for p in self.parameters() if p.grad is not None], self.schedule.clip)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what is frozen; say what the checkpoint belongs to."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        checkpoint["tamp"] = {**self.identity, "history": self.history}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint to resume from belongs to this run.

        Raises:
            InputError: it does not; names what differs.
        """
        theirs = checkpoint.get("tamp", {})
        for name, value in self.identity.items():
            if theirs.get(name) != value:
                raise InputError(f"resume: the checkpoint has {name} {theirs.get(name)!r}, this run {value!r}")
        self.history = list(theirs["history"])
