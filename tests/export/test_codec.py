"""Matrices to values and codes and back, whatever is in them."""

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tamp_lightning.export.codec import BITMASK, POSITIONS, decode, encode, fill_groups, find_pattern, ways

from .conftest import n_of_m

SHAPES = [(1, 1), (3, 5), (7, 8), (5, 16), (1, 4099), (129, 1024), (70, 2000), (0, 4)]


def matrix(shape, dtype, share, seed=0):
    """Random bits, infinities and NaNs among them; `share` of them zero."""
    generator = np.random.default_rng(seed)
    bits = generator.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    bits[generator.random(shape) < share] = 0
    return bits


def round_trip(bits, kept):
    encoded = encode(bits, kept)
    back = decode(encoded.values, encoded.kind, encoded.code, bits.size).reshape(bits.shape)
    assert_array_equal(back, bits)
    assert back.dtype == bits.dtype
    return encoded


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_bit_comes_back(shape, dtype, share):
    bits = matrix(shape, dtype, share)
    encoded = round_trip(bits, bits != 0)
    assert len(encoded.values) >= np.count_nonzero(bits)


@pytest.mark.parametrize(("n", "m"), [(1, 2), (1, 4), (2, 4), (3, 4), (2, 8), (4, 8), (1, 16), (8, 16)])
def test_positions_are_taken_where_they_are_smaller(n, m):
    kept = n_of_m((130, 1024), n, m)
    encoded = round_trip(np.where(kept, matrix(kept.shape, np.uint16, 0) | 1, 0).astype(np.uint16), kept)
    bits_of_a_group = math.ceil(math.log2(math.comb(m, n)))
    assert encoded.kind == POSITIONS
    assert encoded.code[:2].tolist() == [n, m]
    assert len(encoded.code) == 2 + math.ceil(kept.size / m * bits_of_a_group / 8)
    assert bits_of_a_group < m


def test_a_group_that_keeps_fewer_is_filled_up():
    kept = n_of_m((8, 64), 2, 4)
    kept[0, :10] = False
    bits = np.where(kept, 7, 0).astype(np.uint16)
    encoded = round_trip(bits, kept)
    assert encoded.kind == POSITIONS
    assert len(encoded.values) == 8 * 64 // 2
    assert fill_groups(np.array([[False, True, False, False]]), 2, 4).tolist() == [[True, True, False, False]]


def test_groups_do_not_reach_into_the_next_row():
    assert find_pattern(np.tile([True, False, True, False, False, True], (50, 1)), 2) == (1, 2)
    assert find_pattern(np.tile([True, True, False], (50, 1)), 2) is None


def test_unstructured_zeros_give_a_bitmask_of_a_bit_per_weight():
    kept = np.random.default_rng(0).random((64, 100)) < 0.5
    bits = np.where(kept, 9, 0).astype(np.uint16)
    encoded = round_trip(bits, kept)
    assert encoded.kind == BITMASK
    assert encoded.nbytes == 2 * np.count_nonzero(kept) + 800
    assert_array_equal(encoded.code, np.packbits(kept))


def test_ways_by_hand():
    assert ways(2, 4).astype(int).tolist() == [
        [0, 0, 1, 1],
        [0, 1, 0, 1],
        [0, 1, 1, 0],
        [1, 0, 0, 1],
        [1, 0, 1, 0],
        [1, 1, 0, 0],
    ]


def test_positions_by_hand():
    bits = np.array([[5, 0, 6, 0], [0, 0, 7, 8], [9, 1, 0, 0]], dtype=np.uint16)
    code = np.array([2, 4, 0b10000010, 0b10000000], dtype=np.uint8)  # ranks 4, 0, 5
    assert_array_equal(decode(np.array([5, 6, 7, 8, 9, 1], dtype=np.uint16), POSITIONS, code, 12), bits.ravel())


@pytest.mark.parametrize(
    ("count", "kind", "code", "complaint"),
    [
        (2, BITMASK, [0b11100000], "more weights"),
        (4, BITMASK, [0b11100000], "marks 3 weights"),
        (3, BITMASK, [0b11100000, 0], "2 bytes where 1"),
        (3, BITMASK, [0b11100001], "after the last weight"),
        (2, POSITIONS, [2, 4, 0b11000000], "has 6 ways only"),
        (2, POSITIONS, [2, 4], "0 bytes where 1"),
        (2, POSITIONS, [4, 4, 0], "4:4"),
        (2, POSITIONS, [2, 3, 0], "2:3"),
        (2, POSITIONS, [], "0:0"),
    ],
)
def test_what_does_not_belong_together_is_refused(count, kind, code, complaint):
    size = 7 if kind == BITMASK else 4
    with pytest.raises(ValueError, match=complaint):
        decode(np.ones(count, dtype=np.uint16), kind, np.array(code, dtype=np.uint8), size)
