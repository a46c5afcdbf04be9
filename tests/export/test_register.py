"""`from_pretrained` of the bitmask form, in every order of imports; and saving what was loaded."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from tamp_lightning.evaluation.whole import load_whole

from ..stream.conftest import logits, make_llama
from .conftest import bitmask, pruned_run, weight_files

ORDERS = {
    "ours first": "import tamp_lightning, transformers",
    "ours last": "import transformers.modeling_utils, tamp_lightning",
    "their quantizers first": "import transformers.quantizers.auto, tamp_lightning",
}
LOAD = """
import sys, torch, transformers
load = transformers.AutoModelForImageTextToText.from_pretrained
small, plain = (load(path).state_dict() for path in sys.argv[1:])
assert small.keys() == plain.keys()
assert all(torch.equal(small[k].view(torch.uint8), plain[k].view(torch.uint8)) for k in plain)
"""


def python(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_loads_whichever_is_imported_first(run, tmp_path, order):
    done = python(f"{order}\n{LOAD}", bitmask(run, tmp_path / "small"), run / "model")
    assert done.returncode == 0, done.stderr[-2000:]


def test_without_this_package_it_is_refused_and_not_filled_with_noise(run, tmp_path):
    done = python(LOAD, bitmask(run, tmp_path / "small"), run / "model")
    assert done.returncode == 1
    assert "Unknown quantization type, got tamp_bitmask" in done.stderr
    assert "RuntimeError" in done.stderr


@pytest.mark.parametrize("layout", [{}, {"sharded": True, "old": True}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_logits_and_an_ordinary_model(tmp_path, dtype, layout):
    run = pruned_run(tmp_path / "run", dtype=dtype, **layout)
    loaded = AutoModelForImageTextToText.from_pretrained(bitmask(run, tmp_path / "small"), dtype="auto")
    plain = AutoModelForImageTextToText.from_pretrained(run / "model", dtype="auto")
    assert loaded.dtype == dtype
    assert torch.equal(logits(loaded), logits(plain))
    assert not loaded.is_quantized
    assert not hasattr(loaded.config, "quantization_config")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_another_dtype_may_be_asked_for(tmp_path, dtype):
    run = pruned_run(tmp_path / "run", make_llama(), dtype=torch.bfloat16)
    loaded = AutoModelForCausalLM.from_pretrained(bitmask(run, tmp_path / "small"), dtype=dtype).state_dict()
    plain = AutoModelForCausalLM.from_pretrained(run / "model", dtype=dtype).state_dict()
    assert all(loaded[k].dtype == dtype and torch.equal(loaded[k], plain[k]) for k in plain)


@pytest.mark.parametrize("layout", [{}, {"sharded": True, "old": True}], ids=str)
def test_saving_gives_a_plain_checkpoint(tmp_path, layout):
    run = pruned_run(tmp_path / "run", **layout)
    for name, source in (("a", bitmask(run, tmp_path / "small")), ("b", run / "model")):
        AutoModelForImageTextToText.from_pretrained(source).save_pretrained(tmp_path / name)
    assert weight_files(tmp_path / "a") == weight_files(tmp_path / "b")
    assert json.loads((tmp_path / "a/config.json").read_text()) == json.loads((tmp_path / "b/config.json").read_text())


def test_it_can_be_scored(run, tmp_path):
    small = load_whole(bitmask(run, tmp_path / "small"), None)
    assert torch.equal(logits(small), logits(load_whole(run / "model", None)))


def test_a_damaged_file_is_not_loaded(run, tmp_path):
    small = bitmask(run, tmp_path / "small")
    file = small / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1000] ^= 4
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: its sha256 starts with"):
        AutoModelForImageTextToText.from_pretrained(small)
    file.write_bytes(content[:-1000])
    with pytest.raises(ValueError, match="is damaged"):
        AutoModelForImageTextToText.from_pretrained(small)


def test_a_layout_of_tomorrow_is_not_loaded(run, tmp_path):
    small = bitmask(run, tmp_path / "small")
    config = json.loads((small / "config.json").read_text())
    config["quantization_config"]["version"] = 4
    (small / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="layout has version 4, this tamp-lightning reads 1 to 3"):
        AutoModelForImageTextToText.from_pretrained(small)
