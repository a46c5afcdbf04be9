"""AMIA as the reference code does it: five n x n products, the whole kernel read again at every pick.

Written from the method's description, to be compared with `tamp_lightning.ops.tokens.select_representative`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def literal_density(units: Tensor, image: Tensor) -> float:
    """Mean cosine inside the picture, inside text and between them, each from its own Gram matrix."""
    means, text = [], ~image
    for first, second in ((image, image), (text, text), (image, text)):
        cosine = units[first] @ units[second].T
        if first is second:
            cosine = cosine[torch.triu(torch.ones_like(cosine, dtype=torch.bool), diagonal=1)]
        means.append(cosine.mean().item())
    return sum(means) / 3


def literal_amia(outputs: Tensor, attention: Tensor, image: Tensor, coefficient: float = 0.1) -> list[int]:
    """Picked tokens in order, from outputs [n, d], attention [n] and image [n] bool; k = 3, decays 1.0 and 0.2."""
    units = outputs / outputs.norm(dim=1, keepdim=True)
    density = literal_density(units, image)
    distance = 1 - units @ units.T
    squared = 2 - 2 * (units @ units.T)
    kernel = torch.exp(-squared / 2)
    near = distance.topk(4, largest=False).indices[:, 1:]
    value = attention.clone()
    for i in range(3):
        value += torch.exp(-distance.gather(1, near[:, i : i + 1])[:, 0]) * attention[near[:, i]]
    picked: list[int] = []
    while len(picked) < len(outputs):
        best = int(value.argmax())
        for k in near[best].tolist():
            value[k] -= torch.exp(-0.2 * distance[best, k]) * max(value[best].item(), 0)
        picked.append(best)
        chosen = torch.tensor(picked)
        value[chosen] = value.min() - 1
        within, across = kernel[chosen][:, chosen].mean(), kernel[:, chosen].mean()
        if (kernel.mean() + within - 2 * across).item() < coefficient * math.sqrt(1 - density):
            break
    return picked
