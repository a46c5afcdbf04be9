"""Masks of experts in finetuning: by parameter while it trains, by matrix on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tamp_lightning.finetune.masks import check_masks, masks_from_zeros
from tamp_lightning.finetune.target import Target

from ..zoo.experts import WITH_EXPERTS


def pruned(folder: Path, name: str) -> tuple[torch.nn.Module, Target, dict[str, torch.Tensor]]:
    """A checkpoint with half of every matrix of its experts zero."""
    model = WITH_EXPERTS[name].make()
    model.save_pretrained(folder)
    target, masks = Target.find(folder), {}
    for full, linear in target.linears.items():
        weight = linear.weight(model.get_submodule(f"{target.facts.blocks}.{linear.block}")).data
        if linear.piece is not None:
            masks[full] = torch.rand(weight.shape) > 0.5
            weight.mul_(masks[full])
    model.save_pretrained(folder)
    return model, Target.find(folder), masks


@pytest.mark.parametrize("name", ["mixtral", "aria", "ernie"])
def test_masks_are_told_from_zeros_and_become_those_of_parameters(tmp_path: Path, name: str) -> None:
    model, target, masks = pruned(tmp_path, name)
    found = masks_from_zeros(target)
    assert found.keys() == masks.keys()
    assert all(torch.equal(found[full], mask) for full, mask in masks.items())
    check_masks(target, masks)
    parameters = dict(model.named_parameters())
    by_parameter = target.parameter_masks(masks)
    assert len(by_parameter) == len({linear.parameter for linear in target.facts.linears[1] if linear.piece}) * sum(
        any(linear.piece for linear in block) for block in target.facts.linears
    )
    for full, mask in by_parameter.items():
        assert torch.equal(mask, parameters[full] != 0)
    one = next(iter(masks))
    with pytest.raises(ValueError, match="not zero where its mask is"):
        check_masks(target, {one: torch.zeros_like(masks[one])})


@pytest.mark.parametrize("name", ["mixtral", "gemma4_moe", "aria"])
def test_trained_experts_are_written_as_they_are_stored(tmp_path: Path, name: str) -> None:
    model, target, _ = pruned(tmp_path / "sparse", name)
    trained = {
        full: value.detach() * 1.5
        for full, value in model.named_parameters()
        if full.startswith(f"{target.facts.blocks}.") and full.endswith(("gate_up_proj", "down_proj"))
    }
    target.write(tmp_path / "out", target.stored(model, trained))
    again = dict(type(model).from_pretrained(tmp_path / "out").named_parameters())
    for full, value in model.named_parameters():
        assert torch.equal(again[full], trained.get(full, value))
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("sparse", "out"))
    assert {key: value.shape for key, value in before.items()} == {key: value.shape for key, value in after.items()}
