"""Experts are read and written back as they are stored, whichever way that is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tamp_lightning.checkpoint import names
from tamp_lightning.checkpoint.stacked import Origin
from tamp_lightning.methods.selection import Selection
from tamp_lightning.stream import DiskStream

from ..zoo.experts import WITH_EXPERTS


def turned(folder: Path, name: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A checkpoint of a family, stacked experts as [in, out], as the published files of Qwen3-VL-MoE have them."""
    model = WITH_EXPERTS[name].make()
    model.save_pretrained(folder)
    tensors = {
        key: (value.mT if "experts." in key and value.ndim == 3 else value).contiguous().to(dtype)
        for key, value in load_file(folder / "model.safetensors").items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return tensors


@torch.no_grad()
def halve(stream: DiskStream, index: int) -> dict[str, torch.Tensor]:
    """Prune every second weight of a block; masks by full name."""
    block, masks = stream.load(index), {}
    for linear in stream.facts.linears[index]:
        weight = linear.weight(block)
        mask = torch.arange(weight.numel()).reshape(weight.shape) % 3 > 0
        weight.mul_(mask)
        masks[linear.name] = mask
    stream.commit(index, masks)
    return {linear.full: masks[linear.name] for linear in stream.facts.linears[index]}


def check(stream: DiskStream, before: dict[str, torch.Tensor], masks: dict[str, torch.Tensor]) -> None:
    """What was written: zero where masked, else the source's own bits."""
    after = load_file(stream.reader.folder.parent / "out" / "model.safetensors")
    known = {linear.full: linear for linear in stream.facts.all_linears}
    for full, mask in masks.items():
        linear = known[full]
        own, was = linear.stored_part(after[linear.key]), linear.stored_part(before[linear.key])
        assert own.shape == mask.shape
        assert torch.equal(own, was.masked_fill(~mask, 0))
    pruned = {known[full].key for full in masks}
    assert all(torch.equal(after[key], before[key]) for key in before.keys() - pruned)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_experts_stored_turned_are_written_turned(tmp_path: Path, dtype: torch.dtype) -> None:
    before = turned(tmp_path / "source", "qwen3_vl_moe", dtype)
    key = "model.language_model.layers.0.mlp.experts.down_proj"
    assert before[key].shape == (4, 16, 32)
    stream = DiskStream(tmp_path / "source", tmp_path / "out", dtype=torch.float32)
    own = [linear for linear in stream.facts.linears[0] if linear.key == key]
    assert [linear.shape for linear in own] == [(32, 16)] * 4
    masks = {full: mask for k in range(4) for full, mask in halve(stream, k).items()}
    stream.finish()
    check(stream, before, masks)
    kept = own[2].stored_part(load_file(tmp_path / "out/model.safetensors")[key])
    assert torch.equal(kept, before[key][2].mT.masked_fill(~masks[own[2].full], 0))


@pytest.mark.parametrize("name", ["mixtral", "ernie", "aria"])
def test_some_experts_alone_can_be_pruned(tmp_path: Path, name: str) -> None:
    WITH_EXPERTS[name].make().save_pretrained(tmp_path / "source")
    before = load_file(tmp_path / "source/model.safetensors")
    stream = DiskStream(tmp_path / "source", tmp_path / "out", selection=Selection([r"experts\.[13]\.(up|down)_proj"]))
    masks = {full: mask for k in range(4) for full, mask in halve(stream, k).items()}
    assert masks
    stream.finish()
    check(stream, before, masks)


def test_an_expert_without_a_mask_may_not_change(tmp_path: Path) -> None:
    WITH_EXPERTS["mixtral"].make().save_pretrained(tmp_path / "source")
    stream = DiskStream(tmp_path / "source", tmp_path / "out")
    block = stream.load(0)
    linear = stream.facts.linears[0][-1]
    linear.weight(block).data[0, 0] += 1
    with pytest.raises(ValueError, match=r"experts\.3\.down_proj was changed but has no mask"):
        stream.commit(0, {})


@pytest.mark.parametrize("name", ["mixtral", "gemma4_moe"])
def test_a_run_that_ended_is_taken_up(tmp_path: Path, name: str) -> None:
    WITH_EXPERTS[name].make().save_pretrained(tmp_path / "source")
    before = load_file(tmp_path / "source/model.safetensors")
    first = DiskStream(tmp_path / "source", tmp_path / "out")
    masks = halve(first, 0) | halve(first, 1)
    files = first.files
    del first
    stream = DiskStream(tmp_path / "source", tmp_path / "out", resumes=True)
    assert stream.resume(2, files) == 2
    block = stream.load(1)  # as it was committed
    for linear in stream.facts.linears[1]:
        assert not bool(linear.weight(block)[~masks[linear.full]].any())
    masks |= halve(stream, 2) | halve(stream, 3)
    stream.finish()
    check(stream, before, masks)


def test_what_does_not_stand_where_it_was_expected_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WITH_EXPERTS["qwen3_5_moe"].make().save_pretrained(tmp_path / "source")
    find = names.find_origins

    def swapped(*args: object) -> dict[str, Origin]:
        return {n: Origin(o.groups[::-1], o.number, o.makes) for n, o in find(*args).items()}  # type: ignore[arg-type]

    monkeypatch.setattr(names, "find_origins", swapped)
    stream = DiskStream(tmp_path / "source", tmp_path / "out")
    with pytest.raises(ValueError, match=r"experts\.0\.gate_proj is not what .*up_proj.weight holds"):
        stream.load(0)
