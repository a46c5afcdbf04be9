"""What training the towers of any test bed shares: the frozen language model, the loop, the alignment stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR
from transformers import PreTrainedModel

from tamp_lightning.config.recipe import Stage
from tamp_lightning.evaluation.packed import PackedTask, answer_logits
from tamp_lightning.files import atomic_write
from tamp_lightning.passes.trainer import QUIET

TOWER = ("vision_tower", "audio_tower", "heads")
REST = ("multi_modal_projector", "image_newline", "mm_projector")
LANGUAGE = ("language_model",)


def one_cycle(model: nn.Module, stage: Stage, betas: tuple[float, float] = (0.9, 0.999)) -> dict:
    """AdamW with one cycle of the learning rate; towers, the rest, and where it has gradients the language model, which
    does not decay, each at its own peak."""
    groups: list[dict] = []
    for names, rate, decay in (
        (TOWER, stage.tower_lr, 0.01),
        (REST, stage.projector_lr, 0.01),
        (LANGUAGE, stage.language_lr, 0.0),
    ):
        params = [p for n, p in model.named_parameters() if p.requires_grad and any(part in n for part in names)]
        if params:
            groups.append({"params": params, "lr": rate, "weight_decay": decay})
    optimizer = torch.optim.AdamW(groups, betas=betas)
    peaks = [g["lr"] for g in groups]
    schedule = OneCycleLR(optimizer, max_lr=peaks, total_steps=stage.cycle or stage.steps, pct_start=0.1)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def freeze_language_model(model: nn.Module) -> None:
    """Towers, projectors and newline in float32 with gradients; everything else as it is, without."""
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        if any(part in name for part in TOWER + REST):
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)


class TowerStage(L.LightningModule):
    """A stage of training, as long as its settings say."""

    stage: Stage


class Alignment(TowerStage):
    """Teaches towers and projectors to make the frozen language model give the right answers."""

    def __init__(self, model: PreTrainedModel, stage: Stage) -> None:
        super().__init__()
        self.model, self.stage = model, stage

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """Cross-entropy on the answers' tokens."""
        logits, labels, _ = answer_logits(self.model, batch)
        loss = F.cross_entropy(logits.float(), labels)
        self.log("loss", loss, prog_bar=True)
        self.log("token_accuracy", (logits.argmax(-1) == labels).float().mean(), prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict:
        """AdamW, one cycle."""
        return one_cycle(self.model, self.stage)


class PrintLine(L.Callback):
    """One plain line of the logged values every few steps, for log files."""

    def __init__(self, every: int, write: Callable[[str], None] = print) -> None:
        self.every, self.write = every, write

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: object) -> None:
        """Write the line."""
        if trainer.global_step % self.every == 0:
            values = " ".join(f"{k}={float(v):.3f}" for k, v in trainer.callback_metrics.items())
            self.write(f"{type(module).__name__} step {trainer.global_step}: {values}")


def fit_stage(
    module: TowerStage, loader: Iterable, write: Callable[[str], None], *callbacks: L.Callback, **trainer: Any
) -> None:
    """Run one stage to the end of its one-cycle schedule."""
    fixed = {"max_steps": module.stage.steps, "max_epochs": 1, "gradient_clip_val": 1.0}
    L.Trainer(**{**QUIET, **trainer, **fixed, "callbacks": [PrintLine(module.stage.log_every, write), *callbacks]}).fit(
        module, loader
    )


@dataclass(frozen=True)
class TrainedBed:
    """A bed whose towers were just trained, and what its card is made from."""

    model: PreTrainedModel
    state: dict[str, Tensor]
    """The trained tensors, by name in the model."""
    suites: Mapping[str, PackedTask]
    """Questions to score it on: `own`, and controls."""
    data: str
    """What it was trained on."""


def save_towers(state: dict[str, Tensor], path: Path) -> None:
    """Floating-point tensors in bfloat16, the dtype they are used in, but for scales of 8-bit integers."""
    ours = {
        k: v.to(torch.bfloat16) if v.is_floating_point() and not k.endswith("_scale") else v for k, v in state.items()
    }
    ours = {k: v.contiguous() for k, v in ours.items()}
    with atomic_write(path) as scratch:
        save_file(ours, scratch, metadata={"format": "pt"})
