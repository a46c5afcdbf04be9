"""Train the towers and projectors of smol-videollama2 around the frozen language model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader

from tamp_lightning.config.recipe import Stage, TrainBedRecipe
from tamp_lightning.data.packing import collate
from tamp_lightning.evaluation.packed import PackedTask
from tamp_lightning.models.videollama2 import Videollama2Processor, Videollama2Qwen2ForCausalLM
from tamp_lightning.testbeds.clip_suite import ClipSuite, Shown
from tamp_lightning.testbeds.clip_training import LABELS, ClipBank, LabelledClips, PackedClips
from tamp_lightning.testbeds.clips import COLOURS, SHAPES, SOUNDS
from tamp_lightning.testbeds.smol_videollama2 import build_untrained, trainable_state
from tamp_lightning.testbeds.train_stages import (
    Alignment,
    TowerStage,
    TrainedBed,
    fit_stage,
    freeze_language_model,
    one_cycle,
)
from tamp_lightning.testbeds.word_vectors import word_vectors

VIDEO_STEPS = {"shape": (0, 1, 2, 3), "motion": (0, 3), "colour_first": (0,), "colour_last": (3,)}
"""Label -> time steps of the connector's tokens, two frames each, at which it holds whenever the change happens."""
AUDIO_STEPS = {"sound_first": (0, 1), "sound_last": (4, 5)}
"""The same for the audio tower's tokens: its seventh step is half silence, all later ones are silence."""
SEEN_FRAMES = (0, 1, 6, 7)
SHARPNESS = 20.0


class ClipWarmup(TowerStage):
    """Teaches the towers from labels what is seen and heard, and the projectors to say it in words.

    For every label, among the projected tokens of the time at which it holds, the one nearest the embedding of its
    word is compared to the nearest for every other word. Linear heads on the towers' own tokens help them off the
    ground. The language model is not run: its own loss teaches far too slowly to begin with.
    """

    def __init__(self, model: Videollama2Qwen2ForCausalLM, processor: Videollama2Processor, stage: Stage) -> None:
        super().__init__()
        self.model, self.stage = model, stage
        vectors, self.norm = word_vectors(model, processor.tokenizer, LABELS)
        for name, directions in vectors.items():
            self.register_buffer(name, directions, persistent=False)
        config = model.config
        self.heads = nn.ModuleDict({
            "frame": nn.Linear(2 * config.vision_config.hidden_size, len(SHAPES) + len(COLOURS)),
            "sound": nn.Linear(2 * config.audio_config.encoder_embed_dim, len(SOUNDS)),
        })  # fmt: skip

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], index: int) -> Tensor:
        """Sum of all losses, plus a pull of every projected token to the length of a word embedding."""
        pixels, banks, target = batch
        body, named = self.model.model, dict(zip(LABELS, target.unbind(1), strict=True))
        patches = body.vision_tower(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
        heard = body.audio_tower(banks)
        seen = body.mm_projector(patches).unflatten(1, (pixels.shape[1] // 2, -1))
        said = body.mm_projector_a(heard).unflatten(1, (-1, 2))
        loss = self._head_loss(patches, heard.unflatten(1, (-1, 2)), named)
        for tokens, all_steps in ((seen, VIDEO_STEPS), (said, AUDIO_STEPS)):
            loss = loss + 0.1 * (tokens.norm(dim=-1) / self.norm - 1).square().mean()
            for name, steps in all_steps.items():
                logits = self._nearest(tokens[:, steps].flatten(1, 2), name)
                loss = loss + F.cross_entropy(logits, named[name])
                self.log(name, (logits.argmax(1) == named[name]).float().mean(), prog_bar=True)
        self.log("loss", loss, prog_bar=True)
        return loss

    def _nearest(self, tokens: Tensor, name: str) -> Tensor:
        """[B,n,width] -> [B,words]: likeness of the token that is most like each word."""
        return SHARPNESS * (F.normalize(tokens, dim=-1) @ getattr(self, name).T).amax(1)

    def _head_loss(self, patches: Tensor, heard: Tensor, named: dict[str, Tensor]) -> Tensor:
        frames = patches[:, SEEN_FRAMES]
        pooled = torch.cat([frames.mean(2), frames.amax(2)], -1)
        shape, colour = self.heads["frame"](pooled).split([len(SHAPES), len(COLOURS)], -1)
        half = len(SEEN_FRAMES) // 2
        colours = torch.stack([named["colour_first"]] * half + [named["colour_last"]] * half, 1)
        loss = F.cross_entropy(shape.flatten(0, 1), named["shape"].repeat_interleave(len(SEEN_FRAMES)))
        loss = loss + F.cross_entropy(colour.flatten(0, 1), colours.flatten())
        for name, steps in AUDIO_STEPS.items():
            part = heard[:, steps].flatten(1, 2)
            sound = self.heads["sound"](torch.cat([part.mean(1), part.amax(1)], -1))
            loss = loss + F.cross_entropy(sound, named[name])
        return loss

    def configure_optimizers(self) -> dict:
        """AdamW, one cycle."""
        return one_cycle(self, self.stage)


def train_clips(recipe: TrainBedRecipe, write: Callable[[str], None]) -> TrainedBed:
    """Both stages on procedural clips of the train split.

    Raises:
        FileNotFoundError: the language model is not installed.
    """
    model, processor = build_untrained()
    freeze_language_model(model)
    bank, warmup, align = ClipBank(processor, recipe.clips), recipe.warmup, recipe.align
    labelled = DataLoader(LabelledClips(bank, warmup.steps * warmup.pictures), batch_size=warmup.pictures)
    fit_stage(ClipWarmup(model, processor, warmup), labelled, write, **recipe.trainer)
    packed = PackedClips(bank, align.steps * align.pictures, align.questions)
    asked = DataLoader(packed, batch_size=align.pictures, collate_fn=collate)
    with sdpa_kernel(SDPBackend.MATH):  # backward through the fused kernel took a third of the time on a CPU
        fit_stage(Alignment(model, align), asked, write, **recipe.trainer)
    controls: tuple[Shown, ...] = ("own", "muted", "blank", "shuffled")
    suites: dict[str, PackedTask] = {shown: ClipSuite(processor, "test", "quick", shown) for shown in controls}
    return TrainedBed(model, trainable_state(model), suites, f"the first {recipe.clips} clips of the train split")
