"""What earlier versions exported loads for as long as this package lives: goldens/export_0.1.0 was written by 0.1.0."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

OLD = Path(__file__).parents[1] / "goldens" / "export_0.1.0"


def described(tensor):
    """As the tensors of expected.json: dtype, shape, sha256 of the bytes of the pruned dense checkpoint."""
    digest = hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
    return [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), digest]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    AutoModelForImageTextToText.from_pretrained(OLD, dtype="auto").save_pretrained(folder)
    return folder


def test_every_weight_is_the_one_that_was_pruned(saved):
    expected = json.loads((OLD / "expected.json").read_text())
    assert {name: described(tensor) for name, tensor in load_file(saved / "model.safetensors").items()} == expected


def test_half_of_the_weights_of_the_decoder_are_zero(saved):
    weights = {k: v for k, v in load_file(saved / "model.safetensors").items() if k.endswith("proj.weight")}
    zeros = sum(int((v == 0).sum()) for v in weights.values())
    assert len(weights) > 20
    assert zeros > 0.4 * sum(v.numel() for v in weights.values())
