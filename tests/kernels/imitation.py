"""Sparse units as a CPU imitates them, and weights for them."""

import torch
from torch.nn import functional

from tamp_lightning.kernels.semi_structured import is_two_of_four


class Imitation:
    """Units that keep the dense weight, and are as fast as they are told to be for a shape."""

    def __init__(self, gains, name="a device"):
        self.gains, self.name = gains, name
        self.searched, self.used, self.asked = [], [], None

    def compress(self, weight):
        assert weight.shape[0] % 32 == 0
        assert weight.shape[1] % 32 == 0
        assert is_two_of_four(weight)
        return weight.clone()

    def search(self, packed, inputs):
        assert len(inputs) % 8 == 0
        self.searched.append((tuple(packed.shape), len(inputs)))
        return len(inputs) // 512

    def multiply(self, packed, inputs, bias, algorithm):
        assert len(inputs) % 8 == 0
        self.used.append(algorithm)
        self.asked = tuple(packed.shape)
        return functional.linear(inputs, packed, bias)

    def seconds(self, call):
        self.asked = None
        call()
        return 1.0 if self.asked is None else 1 / self.gains[self.asked]


def two_of_four(rows, columns, seed=0):
    weight = torch.randn(rows, columns // 4, 4, generator=torch.Generator().manual_seed(seed))
    lost = weight.abs().argsort(-1)[..., :2]
    return weight.scatter(-1, lost, 0.0).view(rows, columns).bfloat16()
