"""BEATs, the audio encoder (Chen et al. 2022, arXiv 2212.09058), as far as VideoLLaMA2 uses it.

Parameter names are those of the public checkpoint (microsoft/unilm, MIT licence).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tamp_lightning.models.videollama2.configuration import BeatsConfig

FBANK_MEAN, FBANK_STD = 15.41663, 6.55582


def relative_buckets(length: int, num_buckets: int, max_distance: int) -> Tensor:
    """Bucket of every (query, key) distance: exact when near, logarithmic when far, keys ahead in the upper half.

    Computed on the CPU whatever the default device: a logarithm that rounds differently would move a bucket's edge.

    Returns:
        [length,length] int64 in 0..num_buckets-1 (the bidirectional buckets of T5, arXiv 1910.10683).
    """
    position = torch.arange(length, device="cpu")
    distance = position[None, :] - position[:, None]
    half = num_buckets // 2
    exact = half // 2
    far = distance.abs().clamp(min=1).float()
    log_bucket = exact + (torch.log(far / exact) / math.log(max_distance / exact) * (half - exact)).long()
    bucket = torch.where(distance.abs() < exact, distance.abs(), log_bucket.clamp(max=half - 1))
    return bucket + (distance > 0) * half


class WeightNormConv1d(nn.Module):
    """Grouped convolution over time with weight ``g * v / |v|``, the norm taken per kernel position.

    The small constant under the root and the float32 norm are the official code's. An even kernel gives one sample
    too many, which is cut at the end.
    """

    def __init__(self, channels: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.kernel, self.groups = kernel, groups
        self.weight_g = nn.Parameter(torch.empty(1, 1, kernel))
        self.weight_v = nn.Parameter(torch.empty(channels, channels // groups, kernel))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B,channels,n] -> [B,channels,n]."""
        v = self.weight_v.float()
        direction = v * torch.rsqrt(v.square().sum((0, 1), keepdim=True) + 1e-6)
        weight = self.weight_g * direction.to(self.weight_v.dtype)
        # In float32: with bfloat16 on CPUs that have AMX, torch 2.13 gives noise for this shape in narrow models
        # (as in pytorch issue 163347).
        y = F.conv1d(x.float(), weight.float(), self.bias.float(), padding=self.kernel // 2, groups=self.groups)
        return y[..., : x.shape[-1]].to(x.dtype)


class BeatsAttention(nn.Module):
    """Self-attention with a relative position bias that each query scales through a gate."""

    def __init__(self, config: BeatsConfig, owns_table: bool) -> None:
        super().__init__()
        width, self.heads = config.encoder_embed_dim, config.encoder_attention_heads
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.grep_linear = nn.Linear(width // self.heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))
        if owns_table:
            self.relative_attention_bias = nn.Embedding(config.num_buckets, self.heads)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[B,n,width] with the position bias [heads,n,n] -> [B,n,width]."""
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        gates = self.grep_linear(q).unflatten(-1, (2, 4)).sum(-1).sigmoid()
        first, second = gates.chunk(2, dim=-1)
        scale = first * (second * self.grep_a - 1.0) + 2.0  # [B,heads,n,1]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=(scale * bias).to(q.dtype))
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class BeatsLayer(nn.Module):
    """A post-norm encoder layer whose residuals are scaled up as in DeepNorm (arXiv 2203.00555)."""

    def __init__(self, config: BeatsConfig, owns_table: bool) -> None:
        super().__init__()
        width = config.encoder_embed_dim
        self.self_attn = BeatsAttention(config, owns_table)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.residual_scale = (2 * config.encoder_layers) ** 0.25

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[B,n,width] -> [B,n,width]."""
        x = self.self_attn_layer_norm(x * self.residual_scale + self.self_attn(x, bias))
        return self.final_layer_norm(x * self.residual_scale + self.fc2(F.gelu(self.fc1(x))))


class BeatsEncoder(nn.Module):
    """Convolutional positions and the layers; the table of position biases is layer 0's and serves all."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.config = config
        width = config.encoder_embed_dim
        self.pos_conv = nn.Sequential(WeightNormConv1d(width, config.conv_pos, config.conv_pos_groups), nn.GELU())
        self.layers = nn.ModuleList(BeatsLayer(config, owns_table=k == 0) for k in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B,n,width] -> [B,n,width]."""
        x = self.layer_norm(x + self.pos_conv(x.transpose(1, 2)).transpose(1, 2))
        table = self.layers[0].self_attn.relative_attention_bias.weight  # type: ignore[union-attr]
        buckets = relative_buckets(x.shape[1], self.config.num_buckets, self.config.max_distance)
        bias = F.embedding(buckets.to(x.device), table).permute(2, 0, 1)  # type: ignore[arg-type]
        for layer in self.layers:
            x = layer(x, bias)
        return x


class Beats(nn.Module):
    """BEATs without its classifier's use: ``predictor`` is kept only because checkpoints hold it."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        patch, width = config.input_patch_size, config.encoder_embed_dim
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, patch, stride=patch, bias=False)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        # The official code leaves the projection out where nothing changes in width.
        self.post_extract_proj = nn.Linear(config.embed_dim, width) if config.embed_dim != width else nn.Identity()
        self.encoder = BeatsEncoder(config)
        self.predictor = nn.Linear(width, config.predictor_class)

    def forward(self, fbank: Tensor) -> Tensor:
        """Encode log mel filter banks.

        Args:
            fbank: [B,frames,mel bins], not normalised.

        Returns:
            [B,tokens,width]; time runs slowest, frequency fastest.
        """
        normalised = ((fbank - FBANK_MEAN) / (2 * FBANK_STD)).to(self.patch_embedding.weight.dtype)
        patches = self.patch_embedding(normalised.unsqueeze(1)).flatten(2).transpose(1, 2)
        return self.encoder(self.post_extract_proj(self.layer_norm(patches)))
