"""Sparse finetuning: train what pruning left, score before and after, leave a run folder."""

from __future__ import annotations

import gc
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from peft import LoraModel
from rich.console import Console
from torch import Tensor
from transformers import PreTrainedModel

from tamp_lightning.benchmarks.easy_vqa import EasyVqaSuite, headline
from tamp_lightning.benchmarks.predictions import write_json
from tamp_lightning.callbacks.keep_mask import MaskKeeper
from tamp_lightning.data.finetuning import FinetuneBatches
from tamp_lightning.engine.environment import compute_dtype, environment, peak_memory_bytes
from tamp_lightning.engine.evaluate import load_processor
from tamp_lightning.engine.prune import PhaseClock, build_suite, load_whole, run_path
from tamp_lightning.engine.scoring import Scores, score
from tamp_lightning.engine.trainer import QUIET, scoring_trainer
from tamp_lightning.finetune.batches import make_batches
from tamp_lightning.finetune.checkpoint_io import DirectCheckpointIO
from tamp_lightning.finetune.lora import BASE, add_lora, merge_lora
from tamp_lightning.finetune.losses import Answers, Distillation
from tamp_lightning.finetune.module import FinetuneModule, choose_trainable, epochs_of, set_modes
from tamp_lightning.finetune.start import Start, find_start, write_masks
from tamp_lightning.metrics import corrected_retention, retention
from tamp_lightning.models.checkpoints import resolve
from tamp_lightning.recipe import FinetuneRecipe
from tamp_lightning.recipe_finetune import LEARNING_RATES
from tamp_lightning.reporting.finetune import show_finetuned

MONITOR = "held_out_loss"
CHECKPOINTS = "checkpoints"


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
    suite: EasyVqaSuite | None
    trainer: L.Trainer
    clock: PhaseClock

    @classmethod
    def prepare(cls, recipe: FinetuneRecipe, name: str) -> Job:
        """Find the checkpoint, its masks, the data and the teacher; read no weights but to compare them with the masks.

        Raises:
            ValueError, FileNotFoundError: bad input.
        """
        out, clock = run_path(recipe, name), PhaseClock()
        if recipe.checkpoint is None:
            raise ValueError("checkpoint is missing: name a run folder or a sparse checkpoint with --checkpoint=RUN")
        if recipe.resume is not None and not Path(recipe.resume).is_file():
            raise ValueError(f"resume is {recipe.resume!r}, which is no file: give RUN/checkpoints/last.ckpt")
        trainer = finetune_trainer(recipe, out)
        with clock.phase("prepare"):
            start = find_start(recipe.checkpoint, recipe.allow_dense)
            dense = _dense(recipe, start)
            processor = load_processor(start.target.folder)
            lengths = epoch_lengths(recipe, trainer.accumulate_grad_batches)
            batches = make_batches(recipe.data, processor, lengths)
            suite = build_suite(recipe.scores, processor)  # type: ignore[arg-type]
        return cls(recipe, name, out, start, dense, batches, suite, trainer, clock)


def epoch_lengths(recipe: FinetuneRecipe, accumulate: int) -> list[int]:
    """Batches between one look at the held-out loss and the next."""
    steps, every = recipe.schedule.steps, recipe.schedule.check_every
    return [min(every, steps - done) * accumulate for done in range(0, steps, every)]


def _dense(recipe: FinetuneRecipe, start: Start) -> Path | None:
    """The dense model, if it is known.

    Raises:
        ValueError: it has to be the teacher, and nobody says which it is, or it has other decoder blocks.
    """
    named = recipe.distill.teacher or start.source
    if recipe.mode != "distill" and (named is None or not Path(named).is_dir()):
        return None
    if named is None:
        raise ValueError("mode distill needs the dense model: give --distill.teacher=DIR")
    folder = resolve(named)
    if recipe.mode == "distill":
        from tamp_lightning.finetune.target import Target

        teacher = Target.find(folder)
        if teacher.facts.linears != start.target.facts.linears or teacher.facts.blocks != start.target.facts.blocks:
            raise ValueError(f"distill.teacher {folder} has other decoder blocks than {start.target.folder}")
    return folder


def finetune_trainer(recipe: FinetuneRecipe, out: Path) -> L.Trainer:
    """Trainer in ordinary automatic optimisation; an epoch is what lies between two looks at the held-out loss.

    Weights are float32 and computed with in bfloat16 where the processor can: a bfloat16 weight has 8 significant bits,
    so most steps of these learning rates would be rounded away.

    Raises:
        ValueError: an argument that the recipe's own keys decide was given, or TensorBoard is wanted and missing.
    """
    schedule, given = recipe.schedule, dict(recipe.trainer)
    fixed = {
        "max_epochs": epochs_of(schedule),
        "reload_dataloaders_every_n_epochs": 1,
        "use_distributed_sampler": False,
        "inference_mode": False,
        "gradient_clip_val": None,
        "logger": make_logger(recipe.log, out),
        "enable_checkpointing": True,
    }
    if taken := sorted(fixed.keys() & given):
        raise ValueError(f"trainer.{taken[0]} follows from the recipe's own keys: leave it out")
    bars = [RichProgressBar()] if given.get("enable_progress_bar", True) else []
    ours = [*bars, *make_callbacks(recipe, out)]
    half = compute_dtype("auto", L.Trainer(**{**QUIET, **given}).strategy.root_device) is None
    defaults = {**QUIET, "precision": "bf16-mixed" if half else "32-true", "log_every_n_steps": 1}
    plugins = {"plugins": [DirectCheckpointIO()]}
    return L.Trainer(**{**defaults, **plugins, **given, **fixed, "callbacks": ours})


def make_callbacks(recipe: FinetuneRecipe, out: Path) -> list[L.Callback]:
    """Early stopping, the best checkpoint (weights alone), and the last one (to resume from)."""
    folder = out / CHECKPOINTS
    at_end = {"dirpath": folder, "save_on_train_epoch_end": True, "enable_version_counter": False}
    best = ModelCheckpoint(filename="best", monitor=MONITOR, save_weights_only=True, **at_end)
    last = ModelCheckpoint(filename="last", **at_end)
    patience = recipe.schedule.patience
    stop = [EarlyStopping(MONITOR, patience=patience, check_on_train_epoch_end=True)] if patience else []
    return [*stop, best, last]


def make_logger(kind: str, out: Path) -> Logger | bool:
    """Where losses are written.

    Raises:
        ValueError: TensorBoard is not installed.
    """
    if kind == "none":
        return False
    if kind == "csv":
        return CSVLogger(out, name="", version="logs")
    if find_spec("tensorboard") is None and find_spec("tensorboardX") is None:
        raise ValueError("log is 'tensorboard', which is not installed: `pip install tensorboard`, or use csv")
    return TensorBoardLogger(out, name="", version="logs")


def run_finetune(recipe: FinetuneRecipe, name: str, recipe_text: str, console: Console) -> Path:
    """Do what a finetune recipe says and return the run folder.

    Raises:
        ValueError, FileNotFoundError: bad input, before anything is written.
        RuntimeError: training was interrupted, or gave no finite loss.
    """
    L.seed_everything(recipe.seed, verbose=False)
    job = Job.prepare(recipe, name)
    trained, facts = _train(job)
    if not job.trainer.is_global_zero:
        return job.out
    _leave_group()
    with job.clock.phase("write"):
        files = job.start.target.write(job.out / "model", trained)
        write_masks(job.out, job.start)
        (job.out / "recipe.yaml").write_text(recipe_text)
    del trained
    gc.collect()
    metrics = _score(job)
    run = _describe(job, facts, files)
    if metrics is not None:
        write_json(job.out / "metrics.json", metrics)
    write_json(job.out / "run.json", run)
    show_finetuned(console, metrics, run)
    return job.out


def _train(job: Job) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Key on disk -> trained tensor, and what is worth saying about the training."""
    recipe, start = job.recipe, job.start
    model = load_whole(start.target.folder, torch.float32)
    tuner = _make_trainable(job, model)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    rate = recipe.schedule.lr or LEARNING_RATES[recipe.mode]
    identity = {"mode": recipe.mode, "train": recipe.train, "steps": recipe.schedule.steps, "masks": start.digest()}
    module = FinetuneModule(model, _objective(job), recipe.schedule, rate, identity)
    middle = f".{BASE}.weight" if tuner else ".weight"
    keeper = MaskKeeper({f"model.{linear}{middle}": mask for linear, mask in start.masks.items()})
    trainer = job.trainer
    trainer.callbacks.insert(0, keeper)
    with job.clock.phase("train"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty")
        if recipe.resume is None:
            trainer.validate(module, datamodule=job.batches, verbose=False)
        trainer.fit(module, datamodule=job.batches, ckpt_path=recipe.resume, weights_only=True)
    if trainer.interrupted:
        raise RuntimeError(f"finetuning was interrupted: go on with --resume={job.out / CHECKPOINTS / 'last.ckpt'}")
    _restore_best(trainer, module)
    facts = {
        "steps": trainer.global_step,
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "learning_rate": rate,
        "precision": str(trainer.precision),
        "processes": trainer.world_size,
        "held_out_loss": module.history,
        "best": min(range(1, len(module.history)), key=module.history.__getitem__) * recipe.schedule.check_every,
    }
    if tuner is not None:
        merge_lora(tuner)
        names = {f"{linear}.weight" for linear in start.target.linears}
    weights = dict(model.named_parameters())
    _check_zeros(weights, start.masks)
    keys = start.target.keys_of(model, names)
    return {key: weights[name].detach() for name, stored in keys.items() for key in stored}, facts


def _make_trainable(job: Job, model: PreTrainedModel) -> LoraModel | None:
    recipe, start = job.recipe, job.start
    if recipe.mode != "lora":
        choose_trainable(model, recipe.train, start.target.facts.blocks)
        return None
    tuner = add_lora(model, start.target.linears, start.masks, recipe.lora.rank, recipe.lora.alpha)
    set_modes(model)
    return tuner


def _objective(job: Job) -> Answers | Distillation:
    if job.recipe.mode != "distill":
        return Answers()
    assert job.dense is not None
    teacher = load_whole(job.dense, compute_dtype("auto", job.trainer.strategy.root_device))
    return Distillation(teacher, job.start.target.facts.blocks, job.recipe.distill)


def _restore_best(trainer: L.Trainer, module: FinetuneModule) -> None:
    """Take the weights with the smallest held-out loss.

    Raises:
        RuntimeError: no held-out loss was finite.
    """
    best = next(c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor == MONITOR)
    if not best.best_model_path:
        raise RuntimeError(f"no held-out loss was finite ({module.history}): try a smaller schedule.lr")
    state = torch.load(best.best_model_path, map_location=module.device, weights_only=True)["state_dict"]
    if module.load_state_dict(state, strict=False).unexpected_keys:
        raise RuntimeError(f"{best.best_model_path} is not of this model")


def _check_zeros(weights: dict[str, Tensor], masks: dict[str, Tensor]) -> None:
    for name, mask in masks.items():
        left = int(torch.count_nonzero(weights[f"{name}.weight"].detach().cpu().masked_fill(mask.cpu(), 0)))
        if left:
            raise RuntimeError(f"{left} pruned weights of {name} are not zero after training")


def _leave_group() -> None:
    """Score and write alone: metrics would wait for processes that are done."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _score(job: Job) -> dict[str, Any] | None:
    """Content of metrics.json: dense (where known), before and after."""
    if job.suite is None:
        return None
    folders = {"dense": job.dense, "before": job.start.target.folder, "after": job.out / "model"}
    found: dict[str, Scores] = {}
    for phase, folder in folders.items():
        if folder is not None:
            with job.clock.phase(f"score {phase}"):
                found[phase] = _score_one(job, folder, phase, found.get("dense"))
    return summarise_finetuned(job.suite, found)


def _score_one(job: Job, folder: Path, phase: str, dense: Scores | None) -> Scores:
    given = {k: v for k, v in job.recipe.trainer.items() if k in ("accelerator", "enable_progress_bar")}
    trainer = scoring_trainer(phase, **given)
    model = load_whole(folder, compute_dtype("auto", trainer.strategy.root_device))
    assert job.suite is not None
    scores = score(model, job.suite, trainer, batch_size=job.recipe.scores.batch_size, dense=dense)
    if phase != "dense":
        scores.log_probs = []
    del model
    gc.collect()
    return scores


def summarise_finetuned(suite: EasyVqaSuite, found: dict[str, Scores]) -> dict[str, Any]:
    """Content of metrics.json; retention and fidelity only where the dense model was scored too."""
    floor, rows = suite.floor(), {phase: headline(scores.results) for phase, scores in found.items()}
    content: dict[str, Any] = {
        "split": suite.split,
        "questions": len(suite.items),
        "floor": floor,
        "scores": rows,
        "results": {phase: scores.results for phase, scores in found.items()},
    }
    if "dense" in rows:
        dense = rows.pop("dense")
        above = all(dense[kind] > floor[kind] for kind in dense)
        content["retention"] = {k: retention(dense, row) for k, row in rows.items()}
        content["corrected_retention"] = {
            k: corrected_retention(dense, row, floor) if above else None for k, row in rows.items()
        }
        content["scores"] = {"dense": dense, **rows}
    return content


def _describe(job: Job, facts: dict[str, Any], files: dict[str, str]) -> dict[str, Any]:
    start = job.start
    return {
        "recipe": job.name,
        "mode": job.recipe.mode,
        "source": str(job.dense) if job.dense else start.source,
        "start": str(start.run or start.target.folder),
        "checkpoint": str(job.out / "model"),
        "seed": job.recipe.seed,
        "sparsity": start.sparsity,
        "masks_sha256": start.digest(),
        **facts,
        "seconds": job.clock.seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        **environment(),
        "files": files,
    }
