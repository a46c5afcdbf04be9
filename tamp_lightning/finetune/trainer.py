"""The Trainer of sparse finetuning: how long an epoch is, what is logged, what is kept."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, ProgressBar, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from tamp_lightning.config.finetune import Schedule
from tamp_lightning.config.recipe import FinetuneRecipe
from tamp_lightning.errors import InputError
from tamp_lightning.finetune.checkpoint_io import DirectCheckpointIO
from tamp_lightning.passes.callbacks.plain_progress import PlainStepProgress, is_live
from tamp_lightning.passes.trainer import QUIET
from tamp_lightning.runs.environment import compute_dtype
from tamp_lightning.runs.folder import RunFolder
from tamp_lightning.runs.resume import run_path

MONITOR = "held_out_loss"
CHECKPOINTS = "checkpoints"
LAST = "last.ckpt"


def epoch_lengths(schedule: Schedule, accumulate: int) -> list[int]:
    """Batches of each of Lightning's epochs: what lies between one look at the held-out loss and the next."""
    starts = range(0, schedule.steps, schedule.check_every)
    return [min(schedule.check_every, schedule.steps - done) * accumulate for done in starts]


def finetune_path(recipe: FinetuneRecipe, name: str) -> Path:
    """The run folder: new, or one with a checkpoint to go on from.

    Raises:
        InputError: it exists and is not to be resumed, or cannot be.
    """
    if not recipe.resume:
        return run_path(recipe.out, name)
    if recipe.out is None:
        raise InputError("resume: name the run folder to go on with by --out=RUN")
    out = Path(recipe.out)
    last = out / CHECKPOINTS / LAST
    if not last.is_file():
        raise InputError(f"resume: {last} is missing, so there is nothing to go on from")
    if RunFolder(out).model.exists():
        raise InputError(f"resume: {RunFolder(out).model} is there, so training is over; remove it to write it again")
    try:
        torch.load(last, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, UnpicklingError, EOFError) as error:
        raise InputError(f"resume: {last} is damaged ({str(error).splitlines()[0]}): start anew") from None
    return out


def finetune_trainer(recipe: FinetuneRecipe, out: Path) -> L.Trainer:
    """Trainer in ordinary automatic optimisation.

    Weights are float32 and computed with in bfloat16 where the processor can: a bfloat16 weight has 8 significant bits,
    so most steps of these learning rates would be rounded away.

    Raises:
        InputError: an argument that the recipe's own keys decide was given, TensorBoard is wanted and missing, or
            several processes would each choose a run folder.
    """
    given = recipe.trainer
    fixed: dict[str, Any] = {
        "max_epochs": len(epoch_lengths(recipe.schedule, 1)),
        "max_steps": -1,
        "check_val_every_n_epoch": 1,
        "fast_dev_run": False,
        "reload_dataloaders_every_n_epochs": 1,
        "use_distributed_sampler": False,
        "inference_mode": False,
        "gradient_clip_val": None,  # the module clips
        "enable_checkpointing": True,
        "logger": make_logger(recipe.log, out),
        "callbacks": make_callbacks(recipe, out),
    }
    if taken := sorted(fixed.keys() & given):
        raise InputError(f"trainer.{taken[0]} follows from the recipe's own keys: leave it out")
    device = L.Trainer(**QUIET, accelerator=given.get("accelerator", "auto")).strategy.root_device
    precision = "32-true" if compute_dtype("auto", device) else "bf16-mixed"
    defaults = {**QUIET, "precision": precision, "log_every_n_steps": 1, "plugins": [DirectCheckpointIO()]}
    trainer = L.Trainer(**{**defaults, **given, **fixed})
    if trainer.world_size > 1 and recipe.out is None:
        raise InputError(f"trainer asks for {trainer.world_size} processes: name one run folder for all with --out")
    return trainer


def make_callbacks(recipe: FinetuneRecipe, out: Path) -> list[L.Callback]:
    """Progress, early stopping, the best checkpoint (weights alone), and the last one (to go on from)."""
    folder = out / CHECKPOINTS
    at_end: dict[str, Any] = {"dirpath": folder, "save_on_train_epoch_end": True, "enable_version_counter": False}
    best = ModelCheckpoint(filename="best", monitor=MONITOR, save_weights_only=True, **at_end)
    last = ModelCheckpoint(filename=Path(LAST).stem, **at_end)
    patience = recipe.schedule.patience
    stop = [EarlyStopping(MONITOR, patience=patience, check_on_train_epoch_end=True)] if patience else []
    shown = recipe.trainer.get("enable_progress_bar", True)
    bars: list[ProgressBar] = [RichProgressBar() if is_live() else PlainStepProgress()] if shown else []
    return [*bars, *stop, best, last]


def make_logger(kind: str, out: Path) -> Logger | bool:
    """Where losses are written; a resumed run goes on in a folder of its own beside the first.

    Raises:
        InputError: TensorBoard is not installed.
    """
    if kind == "none":
        return False
    older = len(list(out.glob("logs*")))
    version = f"logs_{older}" if older else "logs"
    if kind == "csv":
        return CSVLogger(out, name="", version=version)
    if find_spec("tensorboard") is None and find_spec("tensorboardX") is None:
        raise InputError("log is 'tensorboard', which is not installed: `pip install tensorboard`, or use csv")
    return TensorBoardLogger(out, name="", version=version)


def best_checkpoint(trainer: L.Trainer) -> str:
    """Path of the checkpoint with the smallest held-out loss; empty if none was finite."""
    kept = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    return next(callback.best_model_path for callback in kept if callback.monitor == MONITOR)
