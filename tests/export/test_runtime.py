"""`from_pretrained` with 2:4 weights on sparse units, which are imitated here."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tamp_lightning.export.quantizer import BitmaskConfig
from tamp_lightning.kernels import sparse_units
from tamp_lightning.kernels.semi_structured import FILE, SemiStructuredLinear

from ..kernels.imitation import Imitation
from ..stream.conftest import make_llama, save
from .conftest import bitmask, n_of_m

pytestmark = pytest.mark.filterwarnings("ignore:You passed `quantization_config`")


class Gains(dict):
    """Twice as fast whatever the shape."""

    def __missing__(self, shape):
        return 2.0


@pytest.fixture
def units(monkeypatch):
    units = Imitation(Gains())
    monkeypatch.setattr(sparse_units, "CuSparseLt", lambda: units)
    return units


def two_of_four_model(path):
    folder = save(make_llama(hidden_size=64, intermediate_size=96).to(torch.bfloat16), path)
    tensors = load_file(folder / "model.safetensors")
    for key in [key for key in tensors if "_proj" in key]:
        tensors[key][torch.from_numpy(~n_of_m(tuple(tensors[key].shape), 2, 4))] = 0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("form", ["plain", "positions"])
def test_weights_go_to_the_units(tmp_path, units, form):
    folder = two_of_four_model(tmp_path / "model")
    source = folder if form == "plain" else bitmask(folder, tmp_path / "small")
    config = BitmaskConfig(runtime="semi_structured")
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16, quantization_config=config).eval()
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    assert sum(isinstance(module, SemiStructuredLinear) for module in model.modules()) == 21
    assert set(json.loads((source / FILE).read_text())["shapes"]) >= {"96x64", "64x96"}
    assert len(units.searched) == 2 * len(json.loads((source / FILE).read_text())["shapes"])
    ids = torch.arange(1, 6).unsqueeze(0)
    assert torch.allclose(model(ids).logits, plain(ids).logits, rtol=0.05, atol=0.05)
    model.save_pretrained(tmp_path / "again")
    saved = load_file(tmp_path / "again/model.safetensors")
    assert all(torch.equal(saved[key], value) for key, value in load_file(folder / "model.safetensors").items())


def test_what_cannot_be_is_refused(tmp_path):
    folder = two_of_four_model(tmp_path / "model")
    with pytest.raises(ValueError, match="runtime is 'fast', expected 'semi_structured' or nothing"):
        BitmaskConfig(runtime="fast")
    with pytest.raises(ValueError, match="keep_compressed does not go with runtime"):
        BitmaskConfig(runtime="semi_structured", keep_compressed=True)
    if not torch.cuda.is_available():
        config = BitmaskConfig(runtime="semi_structured")
        with pytest.raises(ValueError, match="needs an NVIDIA GPU"):
            AutoModelForCausalLM.from_pretrained(folder, quantization_config=config)
