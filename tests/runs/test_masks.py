"""masks.safetensors, written and read back."""

import pytest
import torch
from safetensors.torch import load_file

from tamp_lightning.runs.masks import mask_shapes, read_masks, write_masks
from tamp_lightning.runs.plan import Plan

MASKS = {"b": torch.arange(15).view(3, 5) % 3 > 0, "a": torch.arange(16).view(4, 4) % 5 > 1}


@pytest.fixture
def path(tmp_path):
    write_masks(tmp_path / "masks.safetensors", MASKS)
    return tmp_path / "masks.safetensors"


def test_masks_come_back_one_bit_a_weight(path):
    found = read_masks(path, Plan.of_masks(MASKS))
    assert found.keys() == MASKS.keys()
    assert all(torch.equal(found[name], mask) for name, mask in MASKS.items())
    assert {name: len(bits) for name, bits in load_file(path).items()} == {"a": 2, "b": 2}
    assert mask_shapes(path) == {"a": (4, 4), "b": (3, 5)}


def test_the_order_in_which_they_are_given_changes_no_byte(path, tmp_path):
    write_masks(tmp_path / "other", dict(reversed(MASKS.items())))
    assert (tmp_path / "other").read_bytes() == path.read_bytes()


def test_masks_of_another_plan_are_refused(path):
    with pytest.raises(ValueError, match=r"has masks of 2 linears, plan\.json of 1: not of one run"):
        read_masks(path, Plan.of_masks({"a": MASKS["a"]}))
    with pytest.raises(ValueError, match=r"mask of a in .* has sha256 .*, plan\.json says"):
        read_masks(path, Plan.of_masks(MASKS | {"a": ~MASKS["a"]}))


def test_a_file_that_is_missing_or_damaged_is_refused(path):
    plan = Plan.of_masks(MASKS)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is truncated or corrupt"):
        read_masks(path, plan)
    path.unlink()
    with pytest.raises(ValueError, match=r"masks\.safetensors is missing: is .* a run folder"):
        read_masks(path, plan)
