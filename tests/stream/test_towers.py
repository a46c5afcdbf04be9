"""Towers and projector through the streams: found, checked, written like a block."""

import pytest
import torch
from transformers import LlavaNextForConditionalGeneration
from transformers.core_model_loading import Transpose, WeightConverter

from tamp_lightning.methods.selection import Selection
from tamp_lightning.methods.towers import Towers
from tamp_lightning.stream import DiskStream, MemoryStream, find_facts

from ..checkpoint.test_names import convert_with, edit
from .conftest import halve, layout_of, logits, make_llava, prune, save, tensors_of

HALF = Selection(towers=Towers(0.5))
FC1 = "model.vision_tower.encoder.layers.0.mlp.fc1"


def prune_towers(stream, names=None):
    masks = {}
    for name in names or [linear.name for linear in stream.facts.towers]:
        weight = stream.model.get_parameter(f"{name}.weight")
        masks[name] = halve(weight)
        weight.data.mul_(masks[name])
    stream.commit_towers(masks)
    return masks


def test_all_linears_outside_of_the_decoder_but_the_head():
    facts = find_facts(make_llava(), HALF)
    assert len(facts.towers) == 14
    assert facts.towers[-1].full == "model.multi_modal_projector.linear_2"
    assert find_facts(make_llava()).towers == find_facts(make_llava(), Selection()).towers == ()
    assert find_facts(make_llava(), HALF).linears == find_facts(make_llava()).linears


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_what_is_written_is_what_the_skeleton_computes_with(tmp_path, old, dtype):
    source = save(make_llava(), tmp_path / "source", sharded=True, old=old)
    stream = DiskStream(source, tmp_path / "out", dtype=dtype, selection=HALF)
    masks = prune_towers(
        stream, [linear.name for linear in stream.facts.towers[1:]]
    )  # what is committed without a mask stays dense
    prune(stream)
    for index in range(3):
        stream.load(index)
    here = logits(stream.model)
    files = stream.finish()
    assert set(files) >= set(layout_of(source))
    assert layout_of(tmp_path / "out") == layout_of(source)
    loaded = LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "out", dtype=dtype or "auto")
    assert torch.equal(logits(loaded), here)
    dense, exact = make_llava(), LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "out")
    for name in (linear.full for linear in stream.facts.towers):
        weight = dense.get_submodule(name).weight
        expected = weight.masked_fill(~masks[name], 0) if name in masks else weight
        assert torch.equal(exact.get_submodule(name).weight, expected), name


def test_towers_that_were_never_committed_leave_no_checkpoint(tmp_path):
    stream = DiskStream(save(make_llava(), tmp_path / "source"), tmp_path / "out", selection=HALF)
    prune(stream)
    with pytest.raises(RuntimeError, match="were not committed"):
        stream.finish()
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_a_mask_that_is_not_so_is_refused(tmp_path, where):
    def stream():
        if where == "memory":
            return MemoryStream(make_llava(), HALF)
        return DiskStream(source, tmp_path / "out", selection=HALF)

    source = save(make_llava(), tmp_path / "source")
    shape = make_llava().get_submodule(FC1).weight.shape
    for masks, message in (
        (
            {"lm_head": torch.ones(96, 32, dtype=torch.bool)},
            "'lm_head' fits no prunable linear of towers and projector",
        ),
        ({FC1: torch.zeros(shape, dtype=torch.bool)}, rf"^{FC1} is not pruned as its mask says"),
        ({FC1: torch.ones(shape)}, rf"^mask of {FC1} must be bool"),
    ):
        with pytest.raises(ValueError, match=message):
            stream().commit_towers(masks)


def test_a_weight_that_is_converted_on_loading_is_refused_unless_left_out(tmp_path, monkeypatch):
    source = save(make_llava(), tmp_path / "source")
    transposed = {key: value.T for key, value in tensors_of(source).items() if "mlp.fc1.weight" in key}
    edit(source / "model.safetensors", lambda tensors: tensors.update(transposed))
    rule = WeightConverter("mlp.fc1.weight", "mlp.fc1.weight", operations=[Transpose(0, 1)])
    convert_with(monkeypatch, rule)
    with pytest.raises(ValueError, match=r"mlp\.fc1\.weight is not stored as it is used: .*: exclude it with towers"):
        DiskStream(source, tmp_path / "out", selection=HALF)
    stream = DiskStream(source, tmp_path / "out", selection=Selection(towers=Towers(0.5, exclude=["fc1"])))
    assert not any("fc1" in linear.name for linear in stream.facts.towers)
