"""Pruned weights of whole numbers, of awkward shapes, and what they stand for."""

import torch

from tamp_lightning.kernels.form import GROUP, Bitmask

from .conftest import pruned


def whole_numbers(rows, columns, density, bits, wide=torch.bfloat16, seed=0):
    """A compressed weight, and the products of its numbers and scales in float64."""
    generator = torch.Generator().manual_seed(seed)
    most = 2 ** (bits - 1) - 1
    codes = torch.randint(-most, most + 1, (rows, columns), generator=generator, dtype=torch.int8)
    kept = pruned(rows, columns, density, torch.float32, seed) != 0
    scales = (0.001 + torch.rand(rows, -(-columns // GROUP), generator=generator)).bfloat16()
    values = codes[kept]
    if bits == 4:
        even = torch.nn.functional.pad(values, (0, len(values) % 2)).view(-1, 2)
        values = ((even[:, 0] & 15) | (even[:, 1] << 4)).view(torch.uint8)
    exact = (codes * kept).double() * scales.double().repeat_interleave(GROUP, 1)[:, :columns]
    return Bitmask.of_mask(values, kept, scales, wide), exact
