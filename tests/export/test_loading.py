"""Weights of the bitmask form on their way into a model: experts, whichever way they are stacked and stored."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tamp_lightning.checkpoint.linear import Piece
from tamp_lightning.checkpoint.opened import Checkpoint
from tamp_lightning.cli.main import main
from tamp_lightning.export.form import EXPERTS
from tamp_lightning.export.job import Source, to_bitmask
from tamp_lightning.export.masks import Place, RunMasks
from tamp_lightning.export.quantizer import BitmaskConfig
from tamp_lightning.export.values import Rounding, Stored, stored_parts
from tamp_lightning.kernels.linear import CompressedLinear
from tamp_lightning.ops.rounding import round_weight

from ..zoo.experts import WITH_EXPERTS
from .conftest import NO_CARDS, bitmask, dense, save_again, weight_files, write_masks

STACKED, BITMASK, POSITIONS = "gemma4_moe", "_bitmask", "_positions"
LAYOUTS = ["mixtral", "ernie", STACKED, "qwen3_vl_moe turned", "aria", "gpt_oss", "step3p7"]
"""A tensor for each matrix, twice; all in one; that turned; as [in, out]; interleaved; gates and ups apart."""
BOTH = pytest.mark.parametrize("values", ["int8", "int4"])


def pruned_run(path: Path, layout: str) -> tuple[Path, type[nn.Module]]:
    """A run folder in which half of every linear and every expert is masked, and the model's class."""
    name, _, turned = layout.partition(" ")
    model = WITH_EXPERTS[name].make()
    model.save_pretrained(path / "model")
    tensors = load_file(path / "model/model.safetensors")
    for key in [key for key in tensors if turned and "experts." in key and tensors[key].ndim == 3]:
        tensors[key] = tensors[key].mT.contiguous()
    save_file(tensors, path / "model/model.safetensors", {"format": "pt"})
    masks, generator = {}, torch.Generator().manual_seed(0)
    for linear in Checkpoint.open(path / "model").facts.all_linears:
        masks[linear.full] = torch.rand(linear.shape, generator=generator) < 0.5
        linear.stored_part(tensors[linear.key]).masked_fill_(~masks[linear.full], 0)
    save_file(tensors, path / "model/model.safetensors", {"format": "pt"})
    write_masks(path, masks)
    return path, type(model)


def load(kind, folder, **options):
    """A model that nothing was missing or left over for."""
    model, info = kind.from_pretrained(folder, dtype="auto", output_loading_info=True, **options)
    assert not any(info[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model


def check_same(ours: nn.Module, theirs: nn.Module) -> None:
    ours, theirs = ours.state_dict(), theirs.state_dict()
    assert ours.keys() == theirs.keys()
    assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_there_and_back_and_loaded(tmp_path, layout):
    run, kind = pruned_run(tmp_path / "run", layout)
    small = bitmask(run, tmp_path / "small")
    before, after = (load_file(folder / "model.safetensors") for folder in (run / "model", small))
    experts = [key for key in before if "experts." in key and before[key].ndim > 1 and "bias" not in key]
    experts += [key for key in before if ".moe." in key and before[key].ndim == 3]
    assert len(experts) > 3
    for key in experts:
        assert after[key].numel() == (before[key] != 0).sum()
        assert after[key + BITMASK].numel() == -(-before[key].numel() // 8)
    assert json.loads((small / "config.json").read_text())["quantization_config"]["version"] == EXPERTS
    assert weight_files(dense(small, tmp_path / "back")) == weight_files(run / "model")
    model, plain = load(kind, small), load(kind, run / "model")
    check_same(model, plain)
    model.save_pretrained(tmp_path / "a")
    plain.save_pretrained(tmp_path / "b")
    assert weight_files(tmp_path / "a") == weight_files(tmp_path / "b")


def nearest(matrix: torch.Tensor, values: str) -> torch.Tensor:
    """A literal reading of docs/export.md: each 128 inputs of a row by themselves."""
    most, out = {"int8": 127, "int4": 7}[values], matrix.clone()
    for group in out.split(128, dim=1):
        scale = (group.abs().amax(1, keepdim=True) / most).bfloat16().float()
        group.copy_((group / scale).round().clamp(-most, most) * scale)
    return out.nan_to_num(0)


@BOTH
@pytest.mark.parametrize("layout", ["mixtral", STACKED, "gpt_oss"])
def test_whole_numbers_share_a_scale_along_the_inputs(tmp_path, layout, values):
    run, kind = pruned_run(tmp_path / "run", layout)
    sizes = to_bitmask(Source.find(run), tmp_path / "small", NO_CARDS, values)
    facts = Checkpoint.open(run / "model").facts
    assert sizes.rounded == sizes.linears > sizes.experts > 3
    section = json.loads((tmp_path / "small/config.json").read_text())["quantization_config"]
    assert (section["version"], section["values"]) == (EXPERTS, values)
    before, after = (
        load_file(f / "model.safetensors") for f in (run / "model", dense(tmp_path / "small", tmp_path / "back"))
    )
    for linear in facts.all_linears:
        own = linear.stored_part(before[linear.key])
        assert torch.equal(linear.stored_part(after[linear.key]), nearest(own, values)), linear.full
    check_same(load(kind, tmp_path / "small"), load(kind, tmp_path / "back"))
    to_bitmask(Source.find(tmp_path / "back"), tmp_path / "again", NO_CARDS, values)
    assert weight_files(dense(tmp_path / "again", tmp_path / "back2")) == weight_files(tmp_path / "back")


@BOTH
@pytest.mark.parametrize("turned", [False, True])
def test_a_stack_is_rounded_matrix_by_matrix(values, turned):
    stack = torch.randn(3, 200, 140, generator=torch.Generator().manual_seed(0)) * (torch.rand(3, 200, 140) < 0.5)
    rounding = Rounding(values, frozenset(["w"]), frozenset(["w"] if turned else []))
    bits, kept = stack.view(torch.int32).numpy().view(np.uint32), (stack != 0).numpy()
    parts = stored_parts("w", bits, "F32", kept, rounding)
    assert parts["_scales"][1].shape == ((3, 2, 140) if turned else (3, 200, 2))
    (dtype, held), (_, code), (_, scales) = (parts[ending] for ending in ("", BITMASK, "_scales"))
    back = Stored(held, dtype, "bitmask", code, scales, (3, 200, 140), "F32").restore()
    for matrix, own in zip(stack, back, strict=True):
        codes, grid = round_weight(matrix.T.contiguous() if turned else matrix, 8 if values == "int8" else 4)
        expected = codes * grid.float().repeat_interleave(128, 1)[:, : codes.shape[1]]
        assert torch.equal(own.T if turned else own, expected)


def test_positions_of_stacked_experts(tmp_path):
    run, kind = pruned_run(tmp_path / "run", STACKED)
    tensors = load_file(run / "model/model.safetensors")
    for key in [key for key in tensors if "experts." in key and tensors[key].ndim == 3]:
        tensors[key] = torch.ones_like(tensors[key]) * (torch.arange(tensors[key].shape[-1]) % 4 < 2)
    save_file(tensors, run / "model/model.safetensors", {"format": "pt"})
    (run / "masks.safetensors").unlink()
    small = bitmask(run, tmp_path / "small")
    assert any("experts." in key and key.endswith(POSITIONS) for key in load_file(small / "model.safetensors"))
    check_same(load(kind, small), load(kind, run / "model"))


@pytest.mark.parametrize("layout", ["mixtral", STACKED])
def test_compressed_in_memory_are_linears_alone_and_that_is_said(tmp_path, layout):
    run, kind = pruned_run(tmp_path / "run", layout)
    config = BitmaskConfig(keep_compressed=True)
    small, plain = bitmask(run, tmp_path / "small"), load(kind, run / "model").eval()
    with (
        pytest.warns(UserWarning, match="experts of this model are expanded"),
        pytest.warns(UserWarning, match="loading attributes"),
    ):
        model = load(kind, small, quantization_config=config).eval()
    linears = Checkpoint.open(run / "model").facts.all_linears
    held = {name for name, module in model.named_modules() if isinstance(module, CompressedLinear)}
    assert held == {linear.full for linear in linears if linear.piece is None}
    check_same(model, plain)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits, rtol=1e-4, atol=1e-5)
    with pytest.warns(UserWarning, match="experts of this model are expanded"):
        load(kind, run / "model", quantization_config=config)


@pytest.mark.parametrize("layout", ["mixtral", "gpt_oss"])
@pytest.mark.parametrize("seed", range(4))
def test_damage_that_a_checksum_would_find_is_found_without_it(tmp_path, monkeypatch, layout, seed):
    """A bit of one mask is flipped: it keeps one weight more or fewer than there are values."""
    monkeypatch.setattr("tamp_lightning.export.quantizer.verify", lambda path, digest: None)
    run, kind = pruned_run(tmp_path / "run", layout)
    small = bitmask(run, tmp_path / "small")
    tensors = load_file(small / "model.safetensors")
    key = [key for key in tensors if "experts." in key and key.endswith(BITMASK)][seed]
    generator = torch.Generator().manual_seed(seed)
    place = int(torch.randint(8 * len(tensors[key]), (1,), generator=generator))
    tensors[key][place // 8] ^= 1 << place % 8
    save_again(small / "model.safetensors", tensors)
    with pytest.raises(ValueError, match=rf"{key.removesuffix(BITMASK)}: its bitmask marks"):
        kind.from_pretrained(small)


def test_a_file_that_does_not_say_what_it_was_made_of(tmp_path, monkeypatch):
    monkeypatch.setattr("tamp_lightning.export.quantizer.verify", lambda path, digest: None)
    run, kind = pruned_run(tmp_path / "run", "mixtral")
    small = bitmask(run, tmp_path / "small")
    save_file(load_file(small / "model.safetensors"), small / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"has no valid tamp_bitmask\.dense_header"):
        kind.from_pretrained(small)


def test_masks_of_experts_are_read_where_these_stand(tmp_path):
    """Two matrices [2, 3] turned and interleaved in one stack [1, 3, 4]; the last weight of each is kept and zero."""
    places = {
        name: Place("stack", (2, 3), Piece("", "", 0, (start, None, 2), True, True)) for start, name in enumerate("ab")
    }
    stack = np.zeros((1, 3, 4), np.uint16)
    masks = {"a": torch.tensor([[0, 1, 0], [0, 0, 1]]).bool(), "b": torch.tensor([[1, 0, 0], [0, 0, 1]]).bool()}
    stack[0, 1, 0] = stack[0, 0, 1] = 7
    write_masks(tmp_path, masks)
    kept = RunMasks(tmp_path / "masks.safetensors", places, None)("stack", stack)
    assert kept.tolist() == [[[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1]]]
    stack[0, 0, 0] = 7
    with pytest.raises(ValueError, match="1 weights of stack that it masks are not zero"):
        RunMasks(tmp_path / "masks.safetensors", places, None)("stack", stack)


def test_attention_alone_is_of_the_first_version(tmp_path, capsys):
    run, kind = pruned_run(tmp_path / "run", "mixtral")
    whole = load_file(run / "model/model.safetensors")
    tensors = {key: value + (value == 0) if "experts." in key else value for key, value in whole.items()}
    save_file(tensors, run / "model/model.safetensors", {"format": "pt"})
    (run / "masks.safetensors").unlink()
    main(["export", str(run / "model"), "--format=bitmask", "--out", str(tmp_path / "small")])
    assert "experts'" not in capsys.readouterr().out
    assert json.loads((tmp_path / "small/config.json").read_text())["quantization_config"]["version"] == 1
    check_same(load(kind, tmp_path / "small"), load(kind, run / "model"))


def test_the_command_counts_experts(tmp_path, capsys):
    run, _ = pruned_run(tmp_path / "run", STACKED)
    main(["export", str(run), "--format=bitmask", "--out", str(tmp_path / "small")])
    experts = 4 * 4 * 2  # blocks, experts, tensors that stack them
    linears = 2 * 7 + 2 * 6 + experts
    assert f"{linears} linears, {experts} of them experts'" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path / "small")])
    assert f"version 3: {linears} linears with the checkpoint's own values" in " ".join(capsys.readouterr().err.split())
