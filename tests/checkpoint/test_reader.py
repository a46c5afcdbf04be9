"""What a safetensors checkpoint holds and where."""

import json
from contextlib import ExitStack

import pytest
import torch
from safetensors.torch import save_file

from tamp_lightning.checkpoint.reader import CheckpointReader, read_header, read_json

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(4).to(torch.bfloat16), "c": torch.tensor([7])}


@pytest.fixture
def folder(tmp_path):
    save_file({"c": TENSORS["c"], "b": TENSORS["b"]}, tmp_path / "one.safetensors")
    save_file({"a": TENSORS["a"]}, tmp_path / "two.safetensors")
    places = {"a": "two.safetensors", "b": "one.safetensors", "c": "one.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return tmp_path


def test_a_header_says_which_bytes_are_whose(folder):
    shard = read_header(folder / "two.safetensors")
    info = shard.tensors["a"]
    content = (folder / "two.safetensors").read_bytes()
    assert (info.dtype, info.shape, shard.size) == ("F32", (2, 3), len(content))
    assert content[info.start : info.end] == TENSORS["a"].numpy().tobytes()


def test_tensors_come_from_their_shards_or_from_elsewhere(folder, tmp_path):
    reader = CheckpointReader(folder)
    found = reader.read(["a", "b", "c"])
    assert all(torch.equal(found[key], value) and found[key].dtype == value.dtype for key, value in TENSORS.items())
    assert reader.float_dtype() == torch.bfloat16  # of the first file
    (tmp_path / "new").mkdir()
    save_file({"a": -TENSORS["a"]}, tmp_path / "new" / "x.safetensors")
    assert torch.equal(reader.read(["a"], {"a": tmp_path / "new" / "x.safetensors"})["a"], -TENSORS["a"])
    with ExitStack() as stack:
        assert torch.equal(reader.slices(["a"], stack)["a"][1:], TENSORS["a"][1:])


def test_shards_that_disagree_with_the_index_or_each_other_are_refused(folder):
    save_file({"c": TENSORS["c"]}, folder / "one.safetensors")
    with pytest.raises(ValueError, match=r"one\.safetensors lacks b, which .* says it holds"):
        CheckpointReader(folder)
    save_file(TENSORS, folder / "one.safetensors")
    with pytest.raises(ValueError, match=r"tensor a is in both one\.safetensors and two\.safetensors"):
        CheckpointReader(folder)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("{", "is not valid JSON"), ("[]", "must hold a JSON object, got list"), (None, "is missing")],
)
def test_what_is_no_json_object_is_refused(tmp_path, text, complaint):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=rf"config\.json {complaint}"):
        read_json(tmp_path / "config.json")
