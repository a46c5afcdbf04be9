"""The training of a finetune run: a sparse checkpoint in, the tensors that moved out."""

from __future__ import annotations

import math
import warnings
from typing import Any

import lightning as L
import torch
from peft import LoraModel
from torch import Tensor
from transformers import PreTrainedModel

from tamp_lightning.config.finetune import LEARNING_RATES
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.whole import load_whole
from tamp_lightning.finetune.lora import BASE, add_lora, merge_lora
from tamp_lightning.finetune.losses import Answers, Distillation
from tamp_lightning.finetune.module import FinetuneModule, choose_trainable, set_modes
from tamp_lightning.finetune.trainer import CHECKPOINTS, LAST, best_checkpoint
from tamp_lightning.runs.environment import compute_dtype
from tamp_lightning.tasks.finetune_setup import Job


def train(job: Job, trainer: L.Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Key on disk -> trained tensor, and what is worth saying about the training.

    Raises:
        RuntimeError: training was interrupted, or a pruned weight is not zero.
        InputError: no held-out loss was finite, or a checkpoint to go on from is of another run.
    """
    model = load_whole(job.start.target.folder, torch.float32)
    tuner = _make_trainable(job, model)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
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
        names = [f"{linear}.weight" for linear in job.start.target.linears]
    weights: dict[str, Tensor] = {name: p.detach().cpu() for name, p in model.named_parameters()}
    _check_zeros(weights, job.start.masks)
    keys = job.start.target.keys_of(model, names)
    return {key: weights[name] for name, stored in keys.items() for key in stored}, facts


def _make_trainable(job: Job, model: PreTrainedModel) -> LoraModel | None:
    recipe, start = job.recipe, job.start
    if recipe.mode != "lora":
        choose_trainable(model, recipe.train, start.target.facts.blocks)
        return None
    tuner = add_lora(model, start.target.linears, start.block_masks, recipe.lora.rank, recipe.lora.alpha)
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
    inner = job.start.target.linears if wrapped else {}
    ends = {linear: f".{BASE}.weight" if linear in inner else ".weight" for linear in job.start.masks}
    masks = {f"model.{linear}{ends[linear]}": mask for linear, mask in job.start.masks.items()}
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
        if left := int(torch.count_nonzero(weights[f"{name}.weight"].masked_fill(mask, 0))):
            raise RuntimeError(f"{left} pruned weights of {name} are not zero after training")
