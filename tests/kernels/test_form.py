"""The bitmask form in memory, against numpy's packing of the same mask; and what is wrong with a damaged one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tamp_lightning.kernels.form import BLOCK, Bitmask

from .conftest import DTYPES, SHAPES, pruned
from .quantised import whole_numbers


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_mask_and_starts_are_those_of_numpy(shape, density):
    weight = pruned(*shape, density, torch.float32)
    form = Bitmask.of_dense(weight)
    kept = (weight != 0).numpy()
    wide = np.zeros((shape[0], 64 * -(-shape[1] // 64)), dtype=bool)
    wide[:, : shape[1]] = kept
    assert np.array_equal(form.mask.numpy(), np.packbits(wide, axis=1, bitorder="little"))
    flat = kept.ravel()
    for row in range(shape[0]):
        for block in range(-(-shape[1] // BLOCK)):
            assert int(form.starts[row, block]) == flat[: row * shape[1] + block * BLOCK].sum()
    assert np.array_equal(form.values.numpy(), weight.numpy()[kept])


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_weight_comes_back(shape, dtype, monkeypatch):
    weight = pruned(*shape, 0.4, dtype)
    form = Bitmask.of_dense(weight)
    form.check()
    assert torch.equal(form.expand(), weight)
    half = shape[0] // 2
    monkeypatch.setattr("tamp_lightning.kernels.form._PIECE", 3 * shape[1])
    assert torch.equal(form.expand(half), weight[half:])
    assert torch.equal(Bitmask.of_dense(weight).mask, form.mask)
    assert form.nbytes == form.values.nbytes + form.mask.nbytes + form.starts.nbytes


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_packing_on_disk_is_understood(shape):
    weight = pruned(*shape, 0.5, torch.bfloat16)
    kept = weight != 0
    form = Bitmask.of_packed(weight[kept], torch.from_numpy(np.packbits(kept.numpy())), shape)
    form.check()
    assert torch.equal(form.expand(), weight)


def test_a_kept_zero_stays_a_value():
    weight, kept = torch.zeros(2, 70), torch.ones(2, 70, dtype=torch.bool)
    assert Bitmask.of_dense(weight, kept).values.numel() == 140


def test_mask_and_values_have_to_agree():
    kept = torch.ones(2, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match="keeps 16 weights, but 15 are stored"):
        Bitmask.of_mask(torch.zeros(15), kept)
    with pytest.raises(ValueError, match="keeps 16 weights, but 17 are stored"):
        Bitmask.of_packed(torch.zeros(17), torch.full((2,), 255, dtype=torch.uint8), (2, 8))
    with pytest.raises(ValueError, match="where 2 bytes are needed"):
        Bitmask.of_packed(torch.zeros(16), torch.full((3,), 255, dtype=torch.uint8), (2, 8))


def test_every_flipped_bit_is_found():
    """Of mask and starts, one after another: none may reach a kernel."""
    form = Bitmask.of_dense(pruned(3, 70, 0.5, torch.float32))
    for name in ("mask", "starts"):
        part = getattr(form, name).contiguous()
        raw = part.view(torch.uint8).flatten()
        for bit in range(8 * raw.numel()):
            damaged = raw.clone()
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(ValueError, match="mask keeps"):
                replace(form, **{name: damaged.view(part.dtype).view(part.shape)}).check()


@pytest.mark.parametrize("bits", [8, 4])
def test_scales_that_do_not_fit_are_refused(bits):
    form, _ = whole_numbers(3, 300, 0.5, bits)
    form.check()
    for change, message in (
        ({"scales": form.scales[:2].contiguous()}, "scales bfloat16 .2, 3. are not those of 3 x 300 weights"),
        ({"scales": form.scales[:, :2].contiguous()}, "scales bfloat16 .3, 2. are not those"),
        ({"scales": form.scales.float()}, "scales float32"),
        ({"scales": None}, "values of torch.u?int8 without scales"),
        ({"values": torch.zeros(form.values.numel())}, "values of torch.float32 with scales|the mask keeps"),
        ({"values": form.values[:-1].clone()}, "the mask keeps"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(form, **change).check()


@pytest.mark.parametrize(
    "change",
    [
        lambda f: {"values": f.values[:-1].clone()},
        lambda f: {"values": f.values.view(1, -1)},
        lambda f: {"mask": f.mask[:, :8].contiguous()},
        lambda f: {"mask": f.mask.int()},
        lambda f: {"mask": f.mask[:2].contiguous()},
        lambda f: {"mask": f.mask.T.contiguous().T},
        lambda f: {"starts": f.starts.long()},
        lambda f: {"starts": f.starts[:2].contiguous()},
        lambda f: {"columns": 200},
        lambda f: {"columns": 69},
    ],
)
def test_parts_that_do_not_fit_are_refused(change):
    form = Bitmask.of_dense(pruned(3, 70, 0.9, torch.float32))
    with pytest.raises(ValueError, match="mask"):
        replace(form, **change(form)).check()
