"""Train the second edition of smol-llava-next: all of it but the embedding, as LLaVA's second stage does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import CombinedLoader
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from tamp_lightning.config.recipe import Stage, TrainBedRecipe
from tamp_lightning.data.tower_training import crops
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.packed import PackedTask, answer_logits
from tamp_lightning.files import atomic_write
from tamp_lightning.resources import data_folder
from tamp_lightning.testbeds.checkpoints import load_trained
from tamp_lightning.testbeds.low_rank import is_linear, low_rank_difference
from tamp_lightning.testbeds.mixture import KINDS, NAMES, UNKNOWN, MixedQuestions, NamedPictures
from tamp_lightning.testbeds.skills import FormSuite, Shown, SkillSuite
from tamp_lightning.testbeds.smol_llava_next import build_untrained, trainable_state
from tamp_lightning.testbeds.train_stages import (
    TowerStage,
    TrainedBed,
    fit_stage,
    freeze_language_model,
    one_cycle,
)

SHARPNESS = 20
NAMING_WEIGHT = 0.1
PICTURES_PER_SEED = 10**6


class Naming(nn.Module):
    """What stands in each quarter, half and whole picture: taught to the tower, and to the projector in the language
    model's words.

    Two losses as in the first edition's warm-up: linear heads over the mean and the largest of the tower's tokens, and
    for every name the projected token that lies nearest its embedding. The language model is not run, so it costs
    little; answers alone teach a tower to read far too slowly.
    """

    def __init__(self, model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor) -> None:
        super().__init__()
        self.model = model
        embedding = model.get_input_embeddings().weight
        assert isinstance(embedding, Tensor)
        table = embedding.detach().float()
        for name, words in NAMES.items():
            ids = processor.tokenizer(list(words), add_special_tokens=False)["input_ids"]
            vectors = torch.stack([table[i].mean(0) for i in ids])
            self.register_buffer(name, F.normalize(vectors - table.mean(0), dim=-1), persistent=False)
        self.norm = float(table.norm(dim=1).mean())
        vision: Any = model.config.vision_config
        width = vision.hidden_size
        self.heads = nn.ModuleDict({n: nn.Linear(2 * width, len(w) + 1) for n, w in NAMES.items()})

    def forward(self, pictures: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of all losses, plus a pull of every projected token to the length of a word embedding; and the share of
        right names by each rule."""
        pixels, right = crops(pictures), {}
        output = self.model.model.vision_tower(pixels.flatten(0, 1), output_hidden_states=True)
        hidden = output.hidden_states[self.model.config.vision_feature_layer][:, 1:].unflatten(0, pixels.shape[:2])
        projected = self.model.model.multi_modal_projector(hidden).float()
        loss = 0.1 * (projected.norm(dim=-1) / self.norm - 1).square().mean()
        pooled = _regions(torch.cat([hidden.mean(2), hidden.amax(2)], -1))
        direction = F.normalize(projected, dim=-1)
        for column, name in enumerate(NAMES):
            wanted = target[..., column]
            near = _regions(SHARPNESS * (direction @ getattr(self, name).T).amax(2))
            named = torch.where(wanted == len(NAMES[name]), UNKNOWN, wanted)
            for rule, logits, known in (("", self.heads[name](pooled), wanted), ("_words", near, named)):
                seen = known != UNKNOWN
                if seen.any():
                    loss = loss + F.cross_entropy(logits[seen], known[seen])
                    right[name + rule] = (logits.argmax(-1) == known)[seen].float().mean()
        return loss, right


def _regions(crop_values: Tensor) -> Tensor:
    """[B,5,k], the overview and four tiles, to [B,7,k]: tiles, halves, whole; the largest value of a region's crops."""
    tiles = crop_values[:, 1:]
    halves = torch.stack([tiles[:, :2].amax(1), tiles[:, 2:].amax(1)], 1)
    return torch.cat([tiles, halves, crop_values.amax(1, keepdim=True)], 1)


class InstructionStage(TowerStage):
    """Teaches everything to answer, towers and projector at their rates, the language model at `stage.language_lr`, and
    the tower to name what it sees on pictures beside.

    Cross-entropy on the answers' tokens; accuracy of first tokens by kind of question over the last `log_every` steps,
    on pictures that are all new.
    """

    def __init__(self, model: LlavaNextForConditionalGeneration, naming: Naming | None, stage: Stage) -> None:
        super().__init__()
        self.model, self.naming, self.stage = model, naming, stage
        self.hits: dict[str, list[bool]] = defaultdict(list)

    def training_step(self, batch: Sequence[Any], index: int) -> Tensor:
        """Loss of packed questions and, where there are any, of named pictures."""
        asked, *named = batch
        logits, labels, first = answer_logits(self.model, asked)
        loss = F.cross_entropy(logits.float(), labels)
        said = (logits[first].argmax(-1) == labels[first]).tolist()
        for kind, right in zip(asked["items"].tolist(), said, strict=True):
            self.hits[KINDS[kind]].append(right)
        self.log("loss", loss, prog_bar=True)
        if self.naming is not None:
            naming, names = self.naming(*named[0])
            self.log_dict({"naming": naming, **{f"name_{k}": v for k, v in names.items()}}, prog_bar=True)
            loss = loss + NAMING_WEIGHT * naming
        if (index + 1) % self.stage.log_every == 0:
            for kind, hits in self.hits.items():
                self.log(kind, sum(hits) / len(hits))
            self.hits.clear()
        return loss

    def configure_optimizers(self) -> dict:
        """AdamW, one cycle."""
        found = one_cycle(self, self.stage)
        optimizer = found["optimizer"]
        ours = [p for n, p in self.model.named_parameters() if p.requires_grad and "language_model" in n]
        optimizer.add_param_group({"params": ours, "weight_decay": 0.0})
        for group in optimizer.param_groups:  # so few steps that squares of the first ones must not linger
            group["betas"] = (0.9, 0.95)
        peaks = [self.stage.tower_lr, self.stage.projector_lr, self.stage.language_lr]
        steps = self.stage.cycle or self.stage.steps
        schedule = OneCycleLR(optimizer, max_lr=peaks, total_steps=steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class KeepProgress(L.Callback):
    """Writes what is trained to a file every few steps: an interrupted training goes on from it."""

    def __init__(self, file: Path, every: int) -> None:
        self.file, self.every = file, every

    def on_train_batch_end(self, trainer: L.Trainer, module: InstructionStage, *_: object) -> None:
        """Write the file; it appears complete or not at all."""
        if trainer.global_step % self.every == 0:
            with atomic_write(self.file) as scratch:
                save_file(trained_state(module.model), scratch)


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Everything that is trained, in float32: all but the embedding."""
    return {n: p.detach().float() for n, p in model.named_parameters() if p.requires_grad}


def start(begin: Path | None = None) -> tuple[LlavaNextForConditionalGeneration, LlavaNextProcessor]:
    """The first edition in float32, with gradients for all but the embedding.

    Args:
        begin: progress of a training that was interrupted.
    """
    model, processor = build_untrained(torch.float32)
    file = data_folder() / "smol_llava_next" / "towers.safetensors"
    load_trained(model, load_file(file), file)
    model.requires_grad_(True)
    model.get_input_embeddings().requires_grad_(False)
    if begin is not None:
        load_progress(model, begin)
    return model, processor


def load_progress(model: nn.Module, file: Path) -> None:
    """Put what `KeepProgress` wrote into a model that is to be trained.

    Raises:
        InputError: it is not what this model trains.
    """
    state, own = load_file(file), trained_state(model)
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in own.items()}:
        raise InputError(f"{file} is not the progress of a smol-llava-next-2: check begin")
    model.load_state_dict(state, strict=False)


def train_second(recipe: TrainBedRecipe, write: Callable[[str], None]) -> TrainedBed:
    """One stage on easy-VQA's train pictures and train scenes, in float32; what is returned is what ships.

    Raises:
        FileNotFoundError: easy-VQA or the language model is not installed.
    """
    model, processor = start(Path(recipe.begin) if recipe.begin else None)
    align, total = recipe.align, recipe.align.steps
    first = recipe.seed * PICTURES_PER_SEED
    mixed = MixedQuestions(processor, total * align.pictures, align.questions, first, recipe.easy)
    loaders: list[DataLoader] = [DataLoader(mixed, batch_size=align.pictures, collate_fn=mixed.collate)]
    naming = Naming(model, processor) if recipe.named else None
    if recipe.named:
        loaders.append(DataLoader(NamedPictures(total * recipe.named, first), batch_size=recipe.named))
    stage = InstructionStage(model, naming, align)
    with sdpa_kernel(SDPBackend.MATH):  # backward through the fused kernel is slow on a CPU
        keep = KeepProgress(recipe.folder / "progress.safetensors", 5 * align.log_every)
        fit_stage(stage, CombinedLoader(loaders, "min_size"), write, keep, **recipe.trainer)
    return trained_bed(shipped(trained_state(model), recipe.rank), recipe.easy)


def shipped(trained: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    """What a file holds: the language model's linears as low-rank differences, everything else in bfloat16."""
    before = build_untrained(torch.float32)[0].state_dict()
    rest = {k: v.to(torch.bfloat16) for k, v in trained.items() if not is_linear(k)}
    return low_rank_difference(trained, before, rank) | rest


def trained_bed(state: dict[str, Tensor], easy: float) -> TrainedBed:
    """The model that a file with these tensors makes, and what it is scored on."""
    model, processor = build_untrained(torch.bfloat16)
    load_trained(model, state, Path("towers.safetensors"))
    kinds: tuple[Shown, ...] = ("own", "shuffled", "blank", "unseen")
    made_for = FormSuite if easy == 1 else SkillSuite
    suites: dict[str, PackedTask] = {kind: made_for(processor, "test", "quick", kind) for kind in kinds}
    data = "PyPI easy-vqa==1.0, the first 3,500 train pictures"
    if easy < 1:
        data += f" ({easy:.0%} of the pictures), and train scenes of tamp_lightning.testbeds.scenes"
    return TrainedBed(model, state, suites, data)
