"""The Python door: in memory and on disk, what it leaves alone, what it refuses."""

import json
import math
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from transformers import BatchFeature, LlavaNextForConditionalGeneration

from tamp_lightning import Method, prune
from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.passes.callbacks.pruning import pack_bits

from .conftest import as_batch, toys
from .stream.conftest import logits, make_llama, make_llava, save

OPTIONS = {"progress": False, "accelerator": "cpu"}


def batches(kinds="tpt", size=2):
    samples = toys(kinds)
    return [as_batch(samples[k : k + size]) for k in range(0, len(samples), size)]


def test_a_model_in_memory_is_pruned_in_place_and_its_masks_say_how():
    model, dense = make_llava(), make_llava()
    result = prune(model, batches(), **OPTIONS)
    assert result.model is model
    assert result.checkpoint is None
    assert result.sparsity == pytest.approx(0.5, abs=1e-4)
    assert result.seconds.keys() == {"measure", "prune"}
    assert len(result.plan) == 21
    for name, row in result.plan.items():
        mask, weight = result.mask(name), model.get_submodule(name).weight
        assert mask.dtype == torch.bool
        assert int(mask.sum()) == row["kept"]
        assert torch.equal(weight, dense.get_submodule(name).weight * mask)
    with pytest.raises(KeyError):
        result.mask("lm_head")


def test_a_checkpoint_folder_gives_the_same_as_its_model_in_memory(tmp_path):
    source, model = save(make_llava(), tmp_path / "source", sharded=True), make_llava()
    here = prune(model, batches(), **OPTIONS)
    there = prune(str(source), batches(), out=tmp_path / "out", **OPTIONS)
    assert there.model is None
    assert there.checkpoint == tmp_path / "out" / "model"
    assert here.plan == there.plan
    loaded = LlavaNextForConditionalGeneration.from_pretrained(there.checkpoint).eval()
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.equal(logits(loaded), logits(make_llava()))
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["linears"] == there.plan
    with safe_open(tmp_path / "out" / "masks.safetensors", "pt") as file:
        for name in there.plan:
            assert torch.equal(file.get_tensor(name), pack_bits(here.mask(name)))


def test_a_model_in_memory_can_be_written_too(tmp_path):
    result = prune(make_llava(), batches(), out=tmp_path, **OPTIONS)
    loaded = LlavaNextForConditionalGeneration.from_pretrained(result.checkpoint).eval()
    assert torch.equal(logits(loaded), logits(result.model))
    assert {p.name for p in tmp_path.iterdir()} == {"model", "plan.json", "masks.safetensors"}


def states(model):
    modes = [module.training for module in model.modules()]
    return modes, [p.requires_grad for p in model.parameters()], model.get_decoder().config._attn_implementation


@pytest.mark.parametrize("breaks", [False, True])
def test_modes_gradient_flags_and_attention_are_as_before(breaks):
    model = make_llava().train()
    model.get_decoder().layers[0].eval()
    model.lm_head.requires_grad_(False)
    before = states(model)
    assert len(set(before[0])) == len(set(before[1])) == 2
    if breaks:
        with torch.no_grad():
            model.get_decoder().layers[1].mlp.up_proj.weight.fill_(3e38)
        with pytest.raises(ValueError, match="NaN or infinite"):
            prune(model, batches(), **OPTIONS)
    else:
        prune(model, batches(), **OPTIONS)
    assert states(model) == before


def test_dropout_of_a_training_model_is_off():
    first, second = make_llava(), make_llava()
    for module in first.modules():
        for name in ("dropout", "attention_dropout"):  # of the tower's and of the decoder's attention
            if hasattr(module, name):
                setattr(module, name, 0.5)
    assert prune(first.train(), batches(), **OPTIONS).plan == prune(second, batches(), **OPTIONS).plan


def test_a_method_may_be_its_recipe_section():
    section = {"sparsity": 0.3, "allocation": "uniform", "amia": {"neighbors": 5}}
    text = [as_batch(toys("tt"))]
    method = Method(0.3, allocation="uniform", amia=type(Method().amia)(neighbors=5))
    first, second = (prune(make_llama(), text, method=m, **OPTIONS) for m in (section, method))
    assert first.plan == second.plan
    assert first.sparsity == pytest.approx(0.3, abs=1e-4)


def test_batches_may_be_a_processors_or_calibration_data():
    given = batches()
    results = [
        prune(make_llava(), data, **OPTIONS).plan
        for data in (given, tuple(BatchFeature(b) for b in given), CalibrationData.from_batches(given))
    ]
    assert results[0] == results[1] == results[2]


def test_include_and_exclude_choose_linears():
    result = prune(make_llava(), batches(), include=["mlp"], exclude=[r"layers\.1\."], **OPTIONS)
    assert {name.split("layers.")[1] for name in result.plan} == {
        f"{k}.mlp.{part}_proj" for k in (0, 2) for part in ("gate", "up", "down")
    }


def test_computing_in_another_dtype_keeps_the_checkpoints_own(tmp_path):
    source = save(make_llava(), tmp_path / "source")
    result = prune(source, batches(), out=tmp_path / "out", dtype=torch.bfloat16, **OPTIONS)
    loaded, dense = LlavaNextForConditionalGeneration.from_pretrained(result.checkpoint), make_llava()
    name = next(iter(result.plan))
    weight = loaded.get_submodule(name).weight
    assert torch.equal(weight, dense.get_submodule(name).weight * result.mask(name))


REFUSED = [
    ({"calibration": []}, "calibration is empty"),
    ({"calibration": batches()[0]}, "calibration is one batch: give a list"),
    ({"calibration": [{k: v.flip(1) for k, v in as_batch(toys("tt")).items()}]}, "pad on the right"),
    ({"method": {"sparsty": 0.5}}, r"method: unknown key sparsty \(did you mean 'sparsity'\?\)"),
    ({"method": {"amia": {"neighbour": 1}}}, r"method: unknown key amia.neighbour \(did you mean 'amia.neighbors'\?\)"),
    ({"method": {"sparsity": 1.5}}, "sparsity is 1.5"),
    ({"exclude": ["lm_heads"]}, "exclude pattern 'lm_heads' finds no linear"),
    ({"dtype": torch.bfloat16}, "dtype is for checkpoint folders"),
    ({"max_epochs": 2}, r"trainer\.max_epochs is fixed"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_bad_input_is_refused_in_one_line_and_the_model_stays_whole(changes, message):
    model = make_llava()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=message) as error:
        prune(model, **{"calibration": batches(), **OPTIONS, **changes})
    assert "\n" not in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_folder_needs_a_new_out(tmp_path):
    source = save(make_llama(), tmp_path / "source")
    with pytest.raises(ValueError, match="out is missing"):
        prune(source, batches("tt"), **OPTIONS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    for taken in ("full", "full/note.txt"):
        with pytest.raises(ValueError, match=r"exists: nothing is overwritten"):
            prune(source, batches("tt"), out=tmp_path / taken, **OPTIONS)
    with pytest.raises(ValueError, match="nowhere"):
        prune(tmp_path / "nowhere", batches("tt"), out=tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()


def test_the_package_shows_its_names_without_importing_torch():
    code = "import sys, tamp_lightning as t; assert 'prune' in dir(t); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    import tamp_lightning

    with pytest.raises(AttributeError, match="has no attribute 'prunes'"):
        _ = tamp_lightning.prunes


@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (1, 1)])
def test_unpacking_undoes_packing(shape):
    from tamp_lightning.api import unpack_bits

    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5
    bits = pack_bits(mask)
    assert len(bits) == math.ceil(mask.numel() / 8)
    assert torch.equal(unpack_bits(bits, shape), mask)
