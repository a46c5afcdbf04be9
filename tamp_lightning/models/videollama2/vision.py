"""SigLIP (Zhai et al. 2023, arXiv 2303.15343) up to the hidden state that the connector reads."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import SiglipVisionModel

from tamp_lightning.models.videollama2.configuration import Videollama2Config


class VisionTower(nn.Module):
    """SigLIP up to the chosen hidden state; what lies after it is loaded and saved but never run."""

    def __init__(self, config: Videollama2Config) -> None:
        super().__init__()
        self.vision_tower = SiglipVisionModel._from_config(config.vision_config)
        layers, chosen = config.vision_config.num_hidden_layers, config.mm_vision_select_layer
        self.layers_run = chosen if chosen >= 0 else layers + 1 + chosen

    def forward(self, pixels: Tensor) -> Tensor:
        """[B,3,H,W] -> patches [B,patches,c]."""
        hidden = self.vision_tower.embeddings(pixels.to(self.vision_tower.dtype))
        for layer in self.vision_tower.encoder.layers[: self.layers_run]:
            hidden = layer(hidden, attention_mask=None)
        return hidden
