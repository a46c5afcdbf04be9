"""Masks as bits, against numpy."""

import hashlib

import numpy as np
import pytest
import torch

from tamp_lightning.ops.bits import bits_sha256, mask_sha256, pack_bits, unpack_bits


@pytest.mark.parametrize("shape", [(0,), (1,), (8,), (3, 5), (7, 9), (2, 3, 4), (16, 16)])
def test_bits_are_those_of_numpy_and_come_back(shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(len(shape))) > 0.4
    bits = pack_bits(mask)
    np.testing.assert_array_equal(bits.numpy(), np.packbits(mask.numpy()))
    assert torch.equal(unpack_bits(bits, shape), mask)


def test_a_mask_that_is_a_view_has_the_bits_of_its_copy():
    mask = torch.rand(6, 10, generator=torch.Generator().manual_seed(0)) > 0.5
    assert torch.equal(pack_bits(mask.T), pack_bits(mask.T.contiguous()))


def test_hash_of_a_mask_is_that_of_its_bytes():
    mask = torch.tensor([True] + [False] * 6 + [True] + [True])
    assert (
        mask_sha256(mask) == bits_sha256(pack_bits(mask)) == hashlib.sha256(bytes([0b10000001, 0b10000000])).hexdigest()
    )
