"""Train the tower and projector of smol-llava-next around the frozen language model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from tamp_lightning.config.recipe import Stage, TrainBedRecipe
from tamp_lightning.data.easy_vqa import COLOURS, SHAPES
from tamp_lightning.data.packing import collate
from tamp_lightning.data.tower_training import UNKNOWN, LabelledPictures, PackedQuestions, crops
from tamp_lightning.evaluation.packed import PackedTask
from tamp_lightning.testbeds.easy_vqa_suite import EasyVqaSuite, Pictures
from tamp_lightning.testbeds.smol_llava_next import build_untrained, trainable_state, vision_config
from tamp_lightning.testbeds.train_stages import (
    Alignment,
    TowerStage,
    TrainedBed,
    fit_stage,
    freeze_language_model,
    one_cycle,
)
from tamp_lightning.testbeds.word_vectors import word_vectors


class TowerWarmup(TowerStage):
    """Teaches the tower shapes and colours from labels, and the projector to say them in the language model's words.

    Two losses: linear heads over the mean and the largest of the tower's tokens (without the largest, shape hardly
    gets off the ground), and, for every word, the projected token that lies nearest its embedding. The language model
    is not run. It is what makes a picture readable at all: the language model's own loss teaches far too slowly.
    """

    def __init__(self, model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, stage: Stage) -> None:
        super().__init__()
        self.model, self.stage = model, stage
        vectors, self.norm = word_vectors(model, processor.tokenizer, {"shapes": SHAPES, "colours": COLOURS})
        for name, directions in vectors.items():
            self.register_buffer(name, directions, persistent=False)
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
        return one_cycle(self, self.stage)


def train_pictures(recipe: TrainBedRecipe, write: Callable[[str], None]) -> TrainedBed:
    """Both stages on easy-VQA's train pictures.

    Raises:
        FileNotFoundError: easy-VQA or the language model is not installed.
    """
    model, processor = build_untrained()
    freeze_language_model(model)
    warmup, align = recipe.warmup, recipe.align
    labelled = DataLoader(LabelledPictures(warmup.steps * warmup.pictures), batch_size=warmup.pictures)
    fit_stage(TowerWarmup(model, processor, warmup), labelled, write, **recipe.trainer, precision="bf16-mixed")
    packed = PackedQuestions(processor, align.steps * align.pictures, align.questions)
    questions = DataLoader(packed, batch_size=align.pictures, collate_fn=collate)
    fit_stage(Alignment(model, align), questions, write, **recipe.trainer)
    kinds: tuple[Pictures, ...] = ("own", "shuffled", "blank")
    suites: dict[str, PackedTask] = {kind: EasyVqaSuite(processor, "test", "standard", kind) for kind in kinds}
    return TrainedBed(model, trainable_state(model), suites, "PyPI easy-vqa==1.0, the first 3,500 train pictures")
