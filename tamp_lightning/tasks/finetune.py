"""Sparse finetuning: train what pruning left, score before and after, leave a run folder."""

from __future__ import annotations

import gc
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from peft import LoraModel
from rich.console import Console
from torch import Tensor
from transformers import PreTrainedModel

from tamp_lightning.config.finetune import LEARNING_RATES
from tamp_lightning.config.recipe import FinetuneRecipe
from tamp_lightning.data.finetuning import FinetuneBatches
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.scorer import Scorer
from tamp_lightning.evaluation.summary import write_predictions
from tamp_lightning.evaluation.whole import load_processor, load_whole
from tamp_lightning.finetune.batches import make_batches
from tamp_lightning.finetune.lora import BASE, add_lora, merge_lora
from tamp_lightning.finetune.losses import Answers, Distillation
from tamp_lightning.finetune.module import FinetuneModule, choose_trainable, set_modes
from tamp_lightning.finetune.start import Start, find_dense, find_start, write_masks
from tamp_lightning.finetune.trainer import (
    CHECKPOINTS,
    LAST,
    best_checkpoint,
    epoch_lengths,
    finetune_path,
    finetune_trainer,
)
from tamp_lightning.passes.trainer import scoring_trainer
from tamp_lightning.reporting.finetune import show_finetuned
from tamp_lightning.runs.clock import PhaseClock
from tamp_lightning.runs.environment import compute_dtype, environment, peak_memory_bytes
from tamp_lightning.runs.folder import RunFolder
from tamp_lightning.tasks.benchmarks import Say, build_tasks, check_answers
from tamp_lightning.tasks.finetune_scores import finetuned_rows, score_all, summarise_finetuned, write_finetuned


@dataclass
class Job:
    """A finetune recipe with everything it names found and checked, before any weight is trained."""

    recipe: FinetuneRecipe
    name: str
    out: Path
    start: Start
    dense: Path | None
    """The dense model: teacher, and what scores are compared with."""
    batches: FinetuneBatches
    scorer: Scorer
    clock: PhaseClock

    @classmethod
    def prepare(cls, recipe: FinetuneRecipe, name: str, out: Path, accumulate: int, say: Say) -> Job:
        """Find the checkpoint, its masks, the data and the teacher.

        Raises:
            InputError, FileNotFoundError: bad input.
        """
        if recipe.checkpoint is None:
            raise InputError("checkpoint is missing: name a run folder or a sparse checkpoint with --checkpoint=RUN")
        clock = PhaseClock()
        with clock.phase("prepare"):
            start = find_start(recipe.checkpoint, recipe.allow_dense)
            dense = find_dense(recipe, start)
            processor = load_processor(start.target.folder)
            batches = make_batches(recipe.data, processor, epoch_lengths(recipe.schedule, accumulate))
            given = {k: v for k, v in recipe.trainer.items() if k in ("accelerator", "enable_progress_bar")}
            dtype = compute_dtype("auto", scoring_trainer(**given).strategy.root_device)
            tasks = build_tasks(recipe.scores, processor, say)
            check_answers(tasks)
            scorer = Scorer(tasks, recipe.scores.batch_size, dtype, given, clock, say)
        return cls(recipe, name, out, start, dense, batches, scorer, clock)


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
    if job.start.inferred and trainer.is_global_zero:
        console.print(f"[yellow]warning[/yellow]: {job.start.inferred}", soft_wrap=True)
    trained, facts = train(job, trainer)
    if not trainer.is_global_zero:
        return out
    _leave_group()
    folder = RunFolder(out)
    with job.clock.phase("write"):
        files = job.start.target.write(folder.model, trained)
        write_masks(folder, job.start)
        folder.write_recipe(recipe_text)
    del trained, trainer
    gc.collect()
    _report(job, facts, files, console)
    return out


def train(job: Job, trainer: L.Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Key on disk -> trained tensor, and what is worth saying about the training.

    Raises:
        RuntimeError: training was interrupted, or a pruned weight is not zero.
        InputError: no held-out loss was finite, or a checkpoint to go on from is of another run.
    """
    model = load_whole(job.start.target.folder, torch.float32)
    tuner = _make_trainable(job, model)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    if tuner is None:  # what cannot be written back is refused before it is trained
        job.start.target.stored(model, {name: p.detach() for name, p in model.named_parameters() if p.requires_grad})
    module = _module(job, model, trainer, tuner is not None)
    last = job.out / CHECKPOINTS / LAST
    with job.clock.phase("train"), warnings.catch_warnings():
        if job.recipe.resume:
            warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
            trainer.fit(module, datamodule=job.batches, ckpt_path=last, weights_only=True)
        else:
            trainer.validate(module, datamodule=job.batches, verbose=False)
            trainer.fit(module, datamodule=job.batches)
    if trainer.interrupted:
        raise RuntimeError(f"finetuning was interrupted: go on with --out={job.out} --resume=true")
    _restore_best(trainer, module)
    facts = _facts(job, trainer, module)
    if tuner is not None:
        merge_lora(tuner)
        names = [f"{linear}.weight" for linear in job.start.target.modules]
    weights: dict[str, Tensor] = {name: p.detach().cpu() for name, p in model.named_parameters()}
    _check_zeros(weights, job.start.target.parameter_masks(job.start.masks))
    return job.start.target.stored(model, {name: weights[name] for name in names}), facts


def _make_trainable(job: Job, model: PreTrainedModel) -> LoraModel | None:
    recipe, start = job.recipe, job.start
    if recipe.mode != "lora":
        choose_trainable(model, recipe.train, start.target.facts.blocks)
        return None
    tuner = add_lora(model, start.target.modules, start.block_masks, recipe.lora.rank, recipe.lora.alpha)
    set_modes(model)
    return tuner


def _module(job: Job, model: PreTrainedModel, trainer: L.Trainer, wrapped: bool) -> FinetuneModule:
    recipe, objective = job.recipe, _objective(job, trainer.strategy.root_device)
    rate = recipe.schedule.lr or LEARNING_RATES[recipe.mode]
    identity = {
        "mode": recipe.mode,
        "train": recipe.train,
        "steps": recipe.schedule.steps,
        "rate": rate,
        "masks": job.start.digest(),
    }
    inner = {f"{linear}.weight": f"{linear}.{BASE}.weight" for linear in job.start.target.modules} if wrapped else {}
    found = job.start.target.parameter_masks(job.start.masks)
    masks = {f"model.{inner.get(name, name)}": mask for name, mask in found.items()}
    return FinetuneModule(model, objective, recipe.schedule, rate, masks, identity)


def _objective(job: Job, device: torch.device) -> Answers | Distillation:
    if job.recipe.mode != "distill":
        return Answers()
    assert job.dense is not None
    teacher = load_whole(job.dense, compute_dtype("auto", device))
    return Distillation(teacher, job.start.target.facts.blocks, job.recipe.distill)


def _facts(job: Job, trainer: L.Trainer, module: FinetuneModule) -> dict[str, Any]:
    looks = [value if math.isfinite(value) else None for value in module.history]
    best = min((value, look) for look, value in enumerate(looks[1:], start=1) if value is not None)[1]
    return {
        "steps": trainer.global_step,
        "trained_parameters": sum(p.numel() for p in module.parameters() if p.requires_grad),
        "learning_rate": module.rate,
        "precision": str(trainer.precision),
        "processes": trainer.world_size,
        "held_out_loss": looks,
        "best": min(best * job.recipe.schedule.check_every, trainer.global_step),
    }


def _restore_best(trainer: L.Trainer, module: FinetuneModule) -> None:
    """Take the weights with the smallest held-out loss.

    Raises:
        InputError: no held-out loss was finite.
    """
    best = best_checkpoint(trainer)
    if not any(math.isfinite(value) for value in module.history[1:]):
        raise InputError(f"no held-out loss was finite ({module.history}): try a smaller schedule.lr")
    state = torch.load(best, map_location=module.device, weights_only=True, mmap=True)["state_dict"]
    if module.load_state_dict(state, strict=False).unexpected_keys:
        raise RuntimeError(f"{best} is not of this model")


def _check_zeros(weights: dict[str, Tensor], masks: dict[str, Tensor]) -> None:
    for name, mask in masks.items():
        if left := int(torch.count_nonzero(weights[name].masked_fill(mask, 0))):
            raise RuntimeError(f"{left} pruned weights of {name} are not zero after training")


def _leave_group() -> None:
    """Score and write alone: metrics would wait for processes that are done."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _report(job: Job, facts: dict[str, Any], files: dict[str, str], console: Console) -> None:
    start, folder, metrics = job.start, RunFolder(job.out), None
    if tasks := job.scorer.tasks:
        folders = {"dense": job.dense, "before": start.target.folder, "after": folder.model}
        found = score_all(folders, job.scorer)
        metrics = summarise_finetuned(tasks, found)
        rows = finetuned_rows(tasks, found)
        write_predictions(folder.predictions, rows)
        write_finetuned(job.out, f"{job.name}: {job.start.target.folder.name} finetuned", tasks, rows, metrics)
        folder.write_metrics(metrics)
    run = {
        "recipe": job.name,
        "mode": job.recipe.mode,
        "source": str(job.dense) if job.dense else start.source,
        "start": str(start.run or start.target.folder),
        "checkpoint": str(folder.model),
        "seed": job.recipe.seed,
        "sparsity": start.sparsity,
        "masks_sha256": start.digest(),
        **facts,
        "resumed": job.recipe.resume,
        "seconds": job.clock.seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        **environment(),
        "files": files,
    }
    folder.write_run(run)
    show_finetuned(console, metrics, run)
