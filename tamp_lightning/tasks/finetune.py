"""Sparse finetuning: train what pruning left, score before and after, leave a run folder."""

from __future__ import annotations

import gc
from pathlib import Path

import lightning as L
import torch
from rich.console import Console

from tamp_lightning.config.recipe import FinetuneRecipe
from tamp_lightning.finetune.start import write_masks
from tamp_lightning.finetune.trainer import finetune_path, finetune_trainer
from tamp_lightning.runs.folder import RunFolder
from tamp_lightning.tasks.finetune_files import report
from tamp_lightning.tasks.finetune_setup import Job
from tamp_lightning.tasks.finetune_training import train


def run_finetune(recipe: FinetuneRecipe, name: str, recipe_text: str, console: Console) -> Path:
    """Do what a finetune recipe says and return the run folder.

    Raises:
        InputError, FileNotFoundError: bad input, before anything is written; or no held-out loss was finite.
        RuntimeError: training was interrupted.
    """
    L.seed_everything(recipe.seed, verbose=False)
    out = finetune_path(recipe, name)
    trainer = finetune_trainer(recipe, out)
    is_first = trainer.is_global_zero

    def say(line: str) -> None:
        if is_first:
            console.print(line, soft_wrap=True, highlight=False)

    job = Job.prepare(recipe, name, out, trainer.accumulate_grad_batches, say)
    if job.start.inferred and is_first:
        console.print(f"[yellow]warning[/yellow]: {job.start.inferred}", soft_wrap=True)
    trained, facts = train(job, trainer)
    if not is_first:
        return out
    _leave_group()
    folder = RunFolder(out)
    with job.clock.phase("write"):
        files = job.start.target.write(folder.model, trained)
        write_masks(folder, job.start)
        folder.write_recipe(recipe_text)
    del trained, trainer
    gc.collect()
    report(job, facts, files, console)
    return out


def _leave_group() -> None:
    """Score and write alone: metrics would wait for processes that are done."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
