"""`from_pretrained` with linears that stay as they are on disk."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from tamp_lightning.evaluation.whole import load_whole
from tamp_lightning.export.quantizer import BitmaskConfig
from tamp_lightning.kernels.linear import CompressedLinear, held_by

from ..stream.conftest import logits, make_llama, save
from .conftest import bitmask, n_of_m, pruned_run, save_again, weight_files

pytestmark = pytest.mark.filterwarnings("ignore:the CPU kernel")  # it need not be there


def load(folder, kind=AutoModelForImageTextToText, **options):
    if not (folder / "config.json").exists() or "quantization_config" not in json.loads(
        (folder / "config.json").read_text()
    ):
        return kind.from_pretrained(folder, quantization_config=BitmaskConfig(keep_compressed=True), **options)
    with pytest.warns(UserWarning, match="loading attributes"):
        return kind.from_pretrained(folder, quantization_config=BitmaskConfig(keep_compressed=True), **options)


def compressed_names(model):
    return {name for name, module in model.named_modules() if isinstance(module, CompressedLinear)}


@pytest.mark.parametrize("layout", [{}, {"sharded": True, "old": True}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_is_the_dense_one(tmp_path, dtype, layout):
    run = pruned_run(tmp_path / "run", dtype=dtype, **layout)
    small = load(bitmask(run, tmp_path / "small"), dtype="auto")
    plain = AutoModelForImageTextToText.from_pretrained(run / "model", dtype="auto")
    assert small.dtype == dtype
    assert len(compressed_names(small)) == 21
    assert all("language_model" in name for name in compressed_names(small))
    ours, theirs = small.state_dict(), plain.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    eps = torch.finfo(dtype).eps
    assert torch.allclose(logits(small), logits(plain), rtol=20 * eps, atol=20 * eps)
    dense = sum(plain.get_parameter(f"{name}.weight").nbytes for name in compressed_names(small))
    assert held_by(small).nbytes < 0.75 * dense
    assert not small.is_quantized


def test_saving_gives_the_plain_checkpoint(run, tmp_path):
    load(bitmask(run, tmp_path / "small")).save_pretrained(tmp_path / "a")
    AutoModelForImageTextToText.from_pretrained(run / "model").save_pretrained(tmp_path / "b")
    assert weight_files(tmp_path / "a") == weight_files(tmp_path / "b")
    assert json.loads((tmp_path / "a/config.json").read_text()) == json.loads((tmp_path / "b/config.json").read_text())


def test_text_is_generated_and_the_rest_trained(tmp_path):
    run = pruned_run(tmp_path / "run", make_llama())
    small = load(bitmask(run, tmp_path / "small"), AutoModelForCausalLM)
    plain = AutoModelForCausalLM.from_pretrained(run / "model")
    prompt = torch.randint(1, 60, (2, 5), generator=torch.Generator().manual_seed(0))
    options = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(small.generate(prompt, **options), plain.generate(prompt, **options))
    for model in (small, plain):
        model.train()
        model(prompt, labels=prompt).loss.backward()
    for name, parameter in small.named_parameters():
        assert torch.allclose(parameter.grad, plain.get_parameter(name).grad, rtol=1e-3, atol=1e-5), name
    assert not any(".q_proj.weight" in name for name, _ in small.named_parameters())


def test_a_field_in_the_folder_is_enough(run, tmp_path):
    """So that whatever loads the folder, `tamp evaluate` too, keeps it compressed."""
    small = bitmask(run, tmp_path / "small")
    config = json.loads((small / "config.json").read_text())
    config["quantization_config"]["keep_compressed"] = True
    (small / "config.json").write_text(json.dumps(config))
    assert len(compressed_names(load_whole(small, None))) == 21


def test_positions_are_kept_as_a_mask(tmp_path):
    folder = save(make_llama(), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    for key in [key for key in tensors if "_proj" in key]:
        tensors[key][torch.from_numpy(~n_of_m(tuple(tensors[key].shape), 2, 4))] = 0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    small = bitmask(folder, tmp_path / "small")
    assert any(key.endswith("_positions") for key in load_file(small / "model.safetensors"))
    model = load(small, AutoModelForCausalLM)
    assert compressed_names(model)
    assert all(torch.equal(model.state_dict()[key], tensors[key]) for key in model.state_dict() if key in tensors)


def test_a_plain_sparse_checkpoint_can_be_compressed_too(run):
    model = load(run / "model")
    assert len(compressed_names(model)) == 21
    plain = AutoModelForImageTextToText.from_pretrained(run / "model")
    assert torch.allclose(logits(model), logits(plain), rtol=1e-5, atol=1e-5)
    assert not hasattr(model.config, "quantization_config")


def test_another_dtype_may_be_asked_for(tmp_path):
    run = pruned_run(tmp_path / "run", make_llama(), dtype=torch.bfloat16)
    small = load(bitmask(run, tmp_path / "small"), AutoModelForCausalLM, dtype=torch.float32)
    assert {m.values.dtype for m in small.modules() if isinstance(m, CompressedLinear)} == {torch.float32}


def test_a_model_of_another_shape_is_refused(tmp_path):
    small = bitmask(pruned_run(tmp_path / "run", make_llama()), tmp_path / "small")
    config = json.loads((small / "config.json").read_text())
    config["intermediate_size"] += 8
    (small / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"proj\.weight: it has shape \[\d+, \d+\], but the model needs \["):
        load(small, AutoModelForCausalLM)


@pytest.mark.parametrize("seed", range(8))
def test_damage_that_a_checksum_would_find_is_found_without_it(tmp_path, monkeypatch, seed):
    """Bits of the mask are flipped in a file whose checksum is not compared: refused, or another right model."""
    monkeypatch.setattr("tamp_lightning.export.quantizer.verify", lambda path, digest: None)
    run = pruned_run(tmp_path / "run", make_llama(num_hidden_layers=1))
    small = bitmask(run, tmp_path / "small")
    tensors = load_file(small / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    for key in [key for key in tensors if key.endswith("_bitmask")]:
        places = torch.randint(len(tensors[key]), (3,), generator=generator)
        tensors[key][places] ^= 1 << int(torch.randint(8, (1,), generator=generator))
    save_again(small / "model.safetensors", tensors)
    with pytest.raises((ValueError, RuntimeError), match=r"the mask keeps|conversion|convert"):
        load(small, AutoModelForCausalLM)(torch.ones(1, 3, dtype=torch.long))


def test_a_linear_of_another_kind_is_expanded(run, tmp_path, monkeypatch):
    class Other(nn.Linear):
        pass

    monkeypatch.setattr("tamp_lightning.export.quantizer.nn", SimpleNamespace(Linear=Other))
    assert not compressed_names(load(bitmask(run, tmp_path / "small")))
