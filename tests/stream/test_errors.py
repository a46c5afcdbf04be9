import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tamp_lightning.stream import DiskStream, MemoryStream

from .conftest import halve, make_llama

INDEX = "model.safetensors.index.json"


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder: Path, key: str, change) -> str:
    name = json.loads((folder / INDEX).read_text())["weight_map"][key]
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name, metadata={"format": "pt"})
    return name


def truncate(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-10])


def garble(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(b"\x08\0\0\0\0\0\0\0not json")


def only_bin(folder: Path) -> None:
    for path in [*folder.glob("*.safetensors"), folder / INDEX]:
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")


def escape(folder: Path) -> None:
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    edit_json(folder / INDEX, weight_map=weight_map | {"lm_head.weight": "../model.safetensors"})


def drop(folder: Path) -> None:
    edit_tensors(folder, "model.norm.weight", lambda t: t.pop("model.norm.weight"))


def drop_both(folder: Path) -> None:
    drop(folder)
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    del weight_map["model.norm.weight"]
    edit_json(folder / INDEX, weight_map=weight_map)


def add(folder: Path) -> None:
    edit_tensors(folder, "model.norm.weight", lambda t: t.update({"model.other.weight": torch.zeros(2)}))


def reshape(folder: Path) -> None:
    edit_tensors(folder, "model.norm.weight", lambda t: t.update({"model.norm.weight": torch.zeros(31)}))


def as_int8(folder: Path) -> None:
    key = "model.layers.1.mlp.up_proj.weight"
    edit_tensors(folder, key, lambda t: t.update({key: t[key].to(torch.int8)}))


FAULTS = {
    "truncated": (truncate, r"model-00002-of-\d+\.safetensors is truncated or corrupt"),
    "garbled": (garble, r"model-00002-of-\d+\.safetensors is truncated or corrupt"),
    "missing shard": (lambda f: sorted(f.glob("*.safetensors"))[2].unlink(), r"model-00003-.* is missing"),
    "missing index": (lambda f: (f / INDEX).unlink(), r"model\.safetensors\.index\.json is missing"),
    "bad index": (lambda f: (f / INDEX).write_text("{"), r"index\.json is not valid JSON"),
    "empty index": (lambda f: (f / INDEX).write_text("{}"), "has no weight_map"),
    "index leads out": (escape, "names the shard '../model.safetensors'"),
    "index names a key the shard lacks": (drop, "lacks model.norm.weight, which"),
    "only bin": (only_bin, "only .bin weights.*save_pretrained"),
    "no weights": (lambda f: [p.unlink() for p in f.glob("model*")], "has neither model.safetensors nor"),
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json is missing"),
    "quantised": (
        lambda f: edit_json(f / "config.json", quantization_config={"quant_method": "gptq"}),
        "is quantised .*quantization_config.*unquantised",
    ),
    "quantised unsaid": (as_int8, "model.layers.1.mlp.up_proj.weight is stored as I8; only F64"),
    "unknown architecture": (
        lambda f: edit_json(f / "config.json", architectures=["EvilForCausalLM"]),
        "architecture 'EvilForCausalLM' .*never run",
    ),
    "unknown model type": (
        lambda f: edit_json(f / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Config"}),
        r"config\.json cannot be used",
    ),
    "missing tensor": (drop_both, "lacks tensors for LlamaForCausalLM: model.norm.weight"),
    "unexpected tensor": (add, "has unexpected tensors for LlamaForCausalLM: model.other.weight"),
    "wrong shape": (reshape, r"model.norm.weight has shape \(31,\) on disk, but the model needs \(32,\)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_checkpoints_are_refused_in_one_line_and_nothing_is_written(llama_folder: Path, tmp_path: Path, fault: str):
    spoil, message = FAULTS[fault]
    spoil(llama_folder)
    with pytest.raises(ValueError, match=message) as caught:
        DiskStream(llama_folder, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_folder_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="is not a folder"):
        DiskStream(tmp_path / "nowhere", tmp_path / "out")


def test_nothing_is_overwritten(llama_folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    DiskStream(llama_folder, out)  # an empty folder is fine
    (out / "precious").write_text("x")
    with pytest.raises(ValueError, match="Nothing is overwritten"):
        DiskStream(llama_folder, out)
    with pytest.raises(ValueError, match="Nothing is overwritten"):
        DiskStream(llama_folder, llama_folder)


def test_a_full_disk_is_told_before_the_work(llama_folder: Path, tmp_path: Path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1))
    with pytest.raises(ValueError, match=r"needs .* GB, but .* has 0\.0 GB free"):
        DiskStream(llama_folder, tmp_path / "out")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused(llama_folder: Path, tmp_path: Path, value: float):
    key = "model.layers.1.mlp.up_proj.weight"
    name = edit_tensors(llama_folder, key, lambda t: t[key][0].fill_(value))
    stream = DiskStream(llama_folder, tmp_path / "out")
    stream.load(0)
    with pytest.raises(ValueError, match=rf"{key} in .*{name} holds NaN or infinite weights"):
        stream.load(1)


def test_weights_that_overflow_the_asked_dtype_are_refused(llama_folder: Path, tmp_path: Path):
    key = "model.layers.1.mlp.up_proj.weight"
    edit_tensors(llama_folder, key, lambda t: t[key][0].fill_(1e6))
    with pytest.raises(ValueError, match=r"infinite weights \(as torch.float16\)"):
        DiskStream(llama_folder, tmp_path / "out", dtype=torch.float16).load(1)


@pytest.fixture(params=["disk", "memory"])
def stream(request, llama_folder: Path, tmp_path: Path):
    if request.param == "disk":
        return DiskStream(llama_folder, tmp_path / "out")
    return MemoryStream(make_llama())


def test_masks_that_disagree_with_the_weights_are_refused(stream):
    block = stream.load(0)
    weight = block.mlp.up_proj.weight
    mask = halve(weight)
    with pytest.raises(ValueError, match=r"layers\.0\.mlp\.up_proj is not pruned as its mask says: 768"):
        stream.commit(0, {"mlp.up_proj": mask})
    with pytest.raises(ValueError, match="must be bool of shape"):
        stream.commit(0, {"mlp.up_proj": mask.float()})
    with pytest.raises(ValueError, match="must be bool of shape"):
        stream.commit(0, {"mlp.up_proj": mask.T})
    with pytest.raises(ValueError, match=r"fits no prunable linear.*q_proj"):
        stream.commit(0, {"mlp.upproj": mask})
    weight.data.mul_(mask)[mask] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite weights after pruning"):
        stream.commit(0, {"mlp.up_proj": mask})


def test_changes_without_a_mask_are_refused(llama_folder: Path, tmp_path: Path):
    stream = DiskStream(llama_folder, tmp_path / "out")
    stream.load(0).mlp.up_proj.weight.data.mul_(1.5)
    with pytest.raises(ValueError, match=r"layers\.0\.mlp\.up_proj\.weight was changed but has no mask"):
        stream.commit(0, {})
    assert not (tmp_path / "out").exists()


def test_commits_out_of_order_are_refused(llama_folder: Path, tmp_path: Path):
    stream = DiskStream(llama_folder, tmp_path / "out")
    with pytest.raises(RuntimeError, match="block 0 cannot be committed"):
        stream.commit(0, {})
    stream.load(0)
    stream.commit(0, {})
    with pytest.raises(RuntimeError, match="it is committed already"):
        stream.commit(0, {})
    with pytest.raises(RuntimeError, match=r"blocks \[1, 2\] were not committed"):
        stream.finish()
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_source_damaged_during_the_run_is_noticed(llama_folder: Path, tmp_path: Path):
    stream = DiskStream(llama_folder, tmp_path / "out")
    for shard in llama_folder.glob("*.safetensors"):
        shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(ValueError, match="is truncated or corrupt"):
        stream.load(0)
