"""The spatial-temporal convolution connector (STC) of VideoLLaMA2 (arXiv 2406.07476, section 2.2).

Its two stages are RegNet stages with layer norm (Radosavovic et al. 2020); parameter names are the checkpoint's.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tamp_lightning.models.videollama2.configuration import CONNECTOR_PADDING, Videollama2Config

DEPTH = 4


class ChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of [B,c,h,w]."""

    def forward(self, x: Tensor) -> Tensor:
        """[B,c,h,w] -> [B,c,h,w]."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    """Convolution without bias, then layer norm (called ``bn`` in the checkpoint)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
        self.bn = ChannelLayerNorm(outputs, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """[B,inputs,h,w] -> [B,outputs,h,w]."""
        return self.bn(self.conv(x))


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the channels' means (arXiv 1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B,c,h,w] -> [B,c,h,w]."""
        gate = self.fc2(F.silu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()
        return x * gate


class RegBlock(nn.Module):
    """Bottleneck of width ratio 1 around a depthwise 3x3 convolution; the squeeze is a quarter of the input's width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs)
        self.conv2 = ConvNorm(outputs, outputs, kernel=3, groups=outputs)
        self.se = SqueezeExcite(outputs, round(inputs / 4))
        self.conv3 = ConvNorm(outputs, outputs)
        self.downsample = ConvNorm(inputs, outputs) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B,inputs,h,w] -> [B,outputs,h,w]."""
        inner = self.se(F.silu(self.conv2(F.silu(self.conv1(x)))))
        return F.silu(self.conv3(inner) + self.downsample(x))


class RegStage(nn.Sequential):
    """Four blocks, called b1 to b4."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        for k in range(DEPTH):
            self.add_module(f"b{k + 1}", RegBlock(inputs if k == 0 else outputs, outputs))


class StcConnector(nn.Module):
    """Turns the patches of some frames into tokens: half as many in time, height and width."""

    def __init__(self, config: Videollama2Config) -> None:
        super().__init__()
        outputs = config.text_config.hidden_size
        width = config.mm_connector_size or outputs
        padding = CONNECTOR_PADDING[config.mm_projector_type]
        self.s1 = RegStage(config.vision_config.hidden_size, width)
        self.sampler = nn.Sequential(nn.Conv3d(width, width, 2, stride=2, padding=padding), nn.SiLU())
        self.s2 = RegStage(width, width)
        self.readout = nn.Sequential(nn.Linear(width, outputs), nn.GELU(), nn.Linear(outputs, outputs))

    def forward(self, patches: Tensor) -> Tensor:
        """Connect patches to the language model.

        Args:
            patches: [B,frames,patches,c], a square of patches per frame.

        Returns:
            [B,tokens,width]; time runs slowest, then rows, then columns.
        """
        batch, frames, count, _ = patches.shape
        side = int(count**0.5)
        squares = patches.flatten(0, 1).transpose(1, 2).unflatten(2, (side, side))
        volume = self.s1(squares).unflatten(0, (batch, frames)).transpose(1, 2)
        volume = self.sampler(volume).transpose(1, 2)
        tokens = self.s2(volume.flatten(0, 1)).unflatten(0, volume.shape[:2])
        return self.readout(tokens.permute(0, 1, 3, 4, 2).flatten(1, 3))
