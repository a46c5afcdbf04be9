"""What stands in each part of a picture, taught to a tower and a projector beside the answers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from tamp_lightning.data.tower_training import crops
from tamp_lightning.testbeds.mixture import NAMES, UNKNOWN
from tamp_lightning.testbeds.word_vectors import word_vectors

SHARPNESS = 20


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
        vectors, self.norm = word_vectors(model, processor.tokenizer, NAMES)
        for name, directions in vectors.items():
            self.register_buffer(name, directions, persistent=False)
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
