"""Where masks come from, what is refused, and how trained weights get back to disk."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaNextForConditionalGeneration

from tamp_lightning.evaluation.whole import load_whole
from tamp_lightning.finetune.masks import read_masks, unpack_bits
from tamp_lightning.finetune.start import find_start, write_masks
from tamp_lightning.finetune.target import Target
from tamp_lightning.passes.callbacks.pruning import pack_bits

from ..stream.conftest import make_llava, save
from .conftest import prune

LINEAR = "model.language_model.layers.0.mlp.up_proj"


@pytest.fixture
def run(sparse, tmp_path):
    """A run folder that a test may damage."""
    return shutil.copytree(sparse, tmp_path / "run")


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 8), (7, 9)])
def test_bits_come_back(shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5
    assert torch.equal(unpack_bits(pack_bits(mask), shape), mask)


def test_masks_of_a_run_are_where_its_weights_are(sparse):
    start = find_start(str(sparse), False)
    model = load_whole(sparse / "model", None)
    assert len(start.masks) == 21
    for name, mask in start.masks.items():
        assert torch.equal(model.get_submodule(name).weight != 0, mask)
    assert start.sparsity == pytest.approx(0.6, abs=1e-4)
    assert (start.run, start.inferred) == (sparse, "")
    assert start.source == json.loads((sparse / "run.json").read_text())["source"]


def test_masks_told_from_zeros_are_the_same(sparse):
    start = find_start(str(sparse / "model"), False)
    theirs = read_masks(sparse)
    assert start.masks.keys() == theirs.keys()
    assert all(torch.equal(start.masks[name], mask) for name, mask in theirs.items())
    assert start.inferred == f"{sparse / 'model'} is no run folder: the masks of 21 linears are told from their zeros"


def test_a_linear_with_few_zeros_counts_as_dense(dense, tmp_path):
    run = prune(dense, tmp_path / "run", include=["up_proj"])
    assert set(find_start(str(run / "model"), False).masks) == {LINEAR.replace(".0.", f".{k}.") for k in range(3)}


def test_a_dense_checkpoint_is_refused_unless_it_is_a_control(dense):
    with pytest.raises(ValueError, match=r"is dense: .* prune it first, or set allow_dense: true"):
        find_start(str(dense), False)
    control = find_start(str(dense), True)
    assert (control.masks, control.sparsity, control.inferred) == ({}, 0.0, "")


def rewrite(run, change):
    """Change masks and their shapes, checksums following."""
    bits, plan = load_file(run / "masks.safetensors"), json.loads((run / "plan.json").read_text())
    masks = {name: unpack_bits(bits[name], tuple(row["shape"])) for name, row in plan["linears"].items()}
    masks = change(masks)
    start = find_start(str(run), False)
    (run / "masks.safetensors").unlink()
    write_masks(run, type(start)(start.target, masks, None, None))


def test_masks_of_another_model(run):
    rewrite(run, lambda masks: {name.replace("up_proj", "upproj"): mask for name, mask in masks.items()})
    with pytest.raises(ValueError, match=r"masks are of another model: .* has no linear .*upproj that could be pruned"):
        find_start(str(run), False)


def test_masks_of_another_shape(run):
    rewrite(run, lambda masks: {**masks, LINEAR: masks[LINEAR].T})
    with pytest.raises(ValueError, match=r"another model: .*up_proj has shape \(32, 48\) there, \(48, 32\) here"):
        find_start(str(run), False)


def test_weights_under_a_mask(run):
    def turn(masks):
        other = masks[LINEAR].clone()
        kept, gone = other.flatten().nonzero()[0], (~other.flatten()).nonzero()[0]
        other.view(-1)[kept], other.view(-1)[gone] = False, True
        return {**masks, LINEAR: other}

    rewrite(run, turn)
    with pytest.raises(ValueError, match=r"up_proj of .* has 1 weights that are not zero where its mask is"):
        find_start(str(run), False)


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "flipped": (lambda run: flip(run / "masks.safetensors", -5), r"mask of .* has sha256 \w+, plan.json says \w+"),
    "cut": (
        lambda run: (run / "masks.safetensors").write_bytes((run / "masks.safetensors").read_bytes()[:-9]),
        "masks.safetensors is truncated or corrupt",
    ),
    "no masks": (lambda run: (run / "masks.safetensors").unlink(), "masks.safetensors is missing"),
    "no plan": (lambda run: (run / "plan.json").unlink(), "plan.json is missing"),
    "no model": (lambda run: shutil.rmtree(run / "model"), "is no folder"),
    "no weights": (lambda run: (run / "model/model.safetensors").unlink(), "has neither model.safetensors nor"),
    "fewer": (
        lambda run: save_file(dict(list(load_file(run / "masks.safetensors").items())[:3]), run / "masks.safetensors"),
        "has masks of 3 linears, plan.json of 21: not of one run",
    ),
}


@pytest.mark.parametrize(("damage", "complaint"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_run_folders(run, damage, complaint):
    damage(run)
    with pytest.raises((ValueError, FileNotFoundError), match=complaint):
        find_start(str(run), False)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_trained_weights_go_back_under_the_sources_keys(tmp_path, sharded, old, tied):
    source = save(make_llava(tied), tmp_path / "source", sharded=sharded, old=old)
    target = Target.find(source)
    model = load_whole(source, torch.float32)
    names = [n for n, _ in model.named_parameters() if "language_model.layers.1" in n or "embed_tokens" in n]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in names:
        model.get_parameter(name).data += 1
    weights = dict(model.named_parameters())
    trained = {key: weights[n] for n, keys in target.keys_of(model, names).items() for key in keys}
    target.write(tmp_path / "out", trained)
    again = LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "out")
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    changed = {name for name, tensor in again.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {*names, *(["lm_head.weight"] if tied else [])}
    files = [path.name for path in sorted(source.glob("*.safetensors*"))]
    assert [path.name for path in sorted((tmp_path / "out").glob("*.safetensors*"))] == files
    assert Target.find(tmp_path / "out").reader.shard_of == target.reader.shard_of
