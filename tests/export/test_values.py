"""`tamp export --values`: whole numbers under the mask, there and back, loaded expanded and compressed, and damaged."""

import json
import re
from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from tamp_lightning.cli.main import main
from tamp_lightning.export.codec import BITMASK
from tamp_lightning.export.job import Source, to_bitmask
from tamp_lightning.export.quantizer import BitmaskConfig
from tamp_lightning.export.values import Rounding, Stored, size_of, stored_parts, unpacked
from tamp_lightning.kernels.linear import CompressedLinear
from tamp_lightning.ops.rounding import BITS

from ..stream.conftest import logits, make_llama, save
from .conftest import NO_CARDS, dense, n_of_m, pruned_run, save_again, weight_files

pytestmark = [
    pytest.mark.filterwarnings("ignore:the CPU kernel"),  # it need not be there
    pytest.mark.filterwarnings("ignore:You passed `quantization_config`"),
]
BOTH = pytest.mark.parametrize("values", BITS)


def rounded(source, out, values):
    to_bitmask(Source.find(source), out, NO_CARDS, values)
    return out


def nearest(weight, values):
    """A literal reading of docs/export.md: each 128 columns of a row by themselves."""
    most = 2 ** (BITS[values] - 1) - 1
    out = weight.float().clone()
    for row in out:
        for group in row.split(128):
            scale = (group.abs().max() / most).bfloat16().float()
            group.copy_((group / scale).round().clamp(-most, most) * scale if scale else group * 0)
    return out.to(weight.dtype)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_there_and_back(tmp_path, values, dtype):
    run = pruned_run(tmp_path / "run", dtype=dtype)
    small = rounded(run, tmp_path / "small", values)
    section = json.loads((small / "config.json").read_text())["quantization_config"]
    assert (section["version"], section["values"]) == (2, values)
    back, before = (load_file(f / "model.safetensors") for f in (dense(small, tmp_path / "back"), run / "model"))
    linears = {key for key in back if "language_model" in key and "_proj" in key}
    assert len(linears) == 21
    for key, weight in before.items():
        assert back[key].dtype == weight.dtype
        assert torch.equal(back[key], nearest(weight, values) if key in linears else weight), key
    model = AutoModelForImageTextToText.from_pretrained(small, dtype="auto")
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "back", dtype="auto")
    assert model.dtype == dtype
    assert all(torch.equal(model.state_dict()[key], value) for key, value in plain.state_dict().items())
    assert torch.equal(logits(model), logits(plain))


@BOTH
@pytest.mark.parametrize("layout", [{}, {"sharded": True, "old": True}], ids=str)
def test_what_is_rounded_already_is_stored_exactly(tmp_path, values, layout):
    run = pruned_run(tmp_path / "run", dtype=torch.bfloat16, **layout)
    once = dense(rounded(run, tmp_path / "small", values), tmp_path / "once")
    again = dense(rounded(once, tmp_path / "small2", values), tmp_path / "again")
    assert weight_files(once) == weight_files(again)
    AutoModelForImageTextToText.from_pretrained(tmp_path / "small").save_pretrained(tmp_path / "a")
    AutoModelForImageTextToText.from_pretrained(once).save_pretrained(tmp_path / "b")
    assert weight_files(tmp_path / "a") == weight_files(tmp_path / "b")


def compressed(folder, dtype="auto"):
    config = BitmaskConfig(keep_compressed=True)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, quantization_config=config).eval()


@BOTH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
def test_kept_compressed_it_is_the_same_model(tmp_path, values, dtype):
    run = pruned_run(tmp_path / "run", make_llama(), dtype=torch.bfloat16)
    small = rounded(run, tmp_path / "small", values)
    model, plain = compressed(small, dtype), AutoModelForCausalLM.from_pretrained(small, dtype=dtype).eval()
    held = [module for module in model.modules() if isinstance(module, CompressedLinear)]
    assert len(held) > 10
    assert f"values={values}" in repr(held[0])
    assert {module.form.dtype for module in held} == {dtype}
    assert all(torch.equal(model.state_dict()[key], value) for key, value in plain.state_dict().items())
    ids = torch.randint(1, 60, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for inputs in (ids[:1, :3], ids):
            ours, theirs = model(inputs).logits, plain(inputs).logits
            assert torch.allclose(ours, theirs, rtol=30 * torch.finfo(dtype).eps, atol=30 * torch.finfo(dtype).eps)
    cast = model.to(torch.float32)  # scales keep their bits
    held = [module.form for module in cast.modules() if isinstance(module, CompressedLinear)]
    assert {(form.dtype, form.scales.dtype) for form in held} == {(torch.float32, torch.bfloat16)}
    cast.save_pretrained(tmp_path / "saved")
    assert "quantization_config" not in json.loads((tmp_path / "saved/config.json").read_text())


@pytest.mark.parametrize(("values", "bits"), [("int8", 5.125), ("int4", 3.125)])
def test_bits_a_weight_at_half(values, bits):
    generator = np.random.default_rng(0)
    kept = generator.random((256, 1024)) < 0.5
    weight = np.where(kept, generator.integers(1, 0x3F00, kept.shape), 0).astype(np.uint16)
    parts = stored_parts("w", weight, "BF16", kept, Rounding(values, frozenset()))
    assert {key: content[0] for key, content in parts.items()} == {
        "": "I8" if values == "int8" else "U8",
        "_bitmask": "U8",
        "_scales": "BF16",
    }
    assert 8 * size_of(parts) / weight.size == pytest.approx(bits, rel=0.005)


@BOTH
def test_a_dense_checkpoint_has_no_mask(tmp_path, values):
    plain = save(make_llama().to(torch.bfloat16), tmp_path / "plain")
    small = rounded(plain, tmp_path / "small", values)
    keys = set(load_file(small / "model.safetensors"))
    assert not any(key.endswith("_bitmask") for key in keys)
    assert sum(key.endswith("_scales") for key in keys) == sum("_proj.weight" in k and "_scales" not in k for k in keys)
    assert not any("lm_head" in key or "embed" in key for key in keys if key.endswith("_scales"))
    back = load_file(dense(small, tmp_path / "back") / "model.safetensors")
    for key, weight in load_file(plain / "model.safetensors").items():
        assert torch.equal(back[key], nearest(weight, values) if "_proj" in key else weight)
    model = compressed(small)
    assert all(torch.equal(model.state_dict()[key], back[key]) for key in back)


@BOTH
def test_positions_hold_whole_numbers_too(tmp_path, values):
    folder = save(make_llama().to(torch.bfloat16), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    for key in [key for key in tensors if "_proj" in key]:
        tensors[key][torch.from_numpy(~n_of_m(tuple(tensors[key].shape), 2, 4))] = 0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    small = rounded(folder, tmp_path / "small", values)
    assert any(key.endswith("_positions") for key in load_file(small / "model.safetensors"))
    back = load_file(dense(small, tmp_path / "back") / "model.safetensors")
    assert all(torch.equal(back[k], nearest(w, values) if "_proj" in k else w) for k, w in tensors.items())
    assert all(torch.equal(compressed(small).state_dict()[key], back[key]) for key in back)


@BOTH
@pytest.mark.parametrize("seed", range(4))
def test_damage_never_reaches_a_kernel(tmp_path, monkeypatch, values, seed):
    """A bit of every part is flipped, or its end cut off, in a file whose checksum is not compared.

    Refused, or a model that is sound: other numbers, or with 4 bits a mask that takes the spare half of the last byte.
    """
    monkeypatch.setattr("tamp_lightning.export.quantizer.verify", lambda path, digest: None)
    small = rounded(pruned_run(tmp_path / "run", make_llama(num_hidden_layers=1)), tmp_path / "small", values)
    whole = load_file(small / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    key = [key for key in whole if key.endswith("_scales")][seed].removesuffix("_scales")
    for ending in ("", "_bitmask", "_scales"):
        for cut in (True, False):
            part = whole[key + ending]
            raw = part.view(torch.uint8).flatten().clone()
            if not cut:
                place = int(torch.randint(8 * len(raw), (1,), generator=generator))
                raw[place // 8] ^= 1 << place % 8
            changed = raw[: len(raw) - 2 * cut].view(part.dtype)
            damaged = {**whole, key + ending: changed if cut else changed.view(part.shape)}
            save_again(small / "model.safetensors", damaged)
            if cut or (ending == "_bitmask" and values == "int8"):
                with pytest.raises((ValueError, RuntimeError), match=r"the mask|scales|conversion|convert|Conversion"):
                    compressed(small)(torch.ones(1, 3, dtype=torch.long))
                continue
            with suppress(ValueError, RuntimeError):
                model = compressed(small)
                model(torch.ones(1, 3, dtype=torch.long))
                assert all(m.form.check() is None for m in model.modules() if isinstance(m, CompressedLinear))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"values": np.zeros(3, np.uint8)}, "3 bytes of values|marks 4 weights as kept, but 6"),
        ({"values": np.array([0x11, 0x11, 0x11], np.uint8), "code": np.array([0xF8], np.uint8)}, "values of 4 bits"),
        ({"scales": np.zeros((2, 2), np.uint16)}, r"scales have shape \[2, 2\]"),
        ({"dtype": "F32"}, "scales have shape"),
        ({"code": np.array([0xFF], np.uint8)}, "marks 8 weights as kept, but 4"),
        ({"kind": None, "code": None}, "2 bytes of values of 4 bits where 8 values are needed"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, complaint):
    good = {
        "values": np.array([0x21, 0x43], np.uint8),
        "dtype": "U8",
        "kind": BITMASK,
        "code": np.array([0xF0], np.uint8),
        "scales": np.full((2, 1), 0x3F80, np.uint16),
        "shape": (2, 4),
        "wide": "F32",
    }
    assert Stored(**good).restore().tolist() == [[1, 2, 3, 4], [0, 0, 0, 0]]
    with pytest.raises(ValueError, match=complaint):
        Stored(**good | change).restore()


def test_the_first_of_two_numbers_is_in_the_lower_half():
    assert unpacked(np.array([0xF1, 0x07], np.uint8), "U8", 3).view(np.int8).tolist() == [1, -1, 7]


def test_the_command_says_what_it_did_and_what_it_cannot(tmp_path, capsys):
    run = pruned_run(tmp_path / "run", make_llama(), dtype=torch.bfloat16)
    main(["export", str(run), "--format=bitmask", "--values=int8", "--out", str(tmp_path / "small")])
    out = capsys.readouterr().out
    assert re.search(r"21 linears, 21 of them int8: .* MB became .* MB \(\d\d\.\d\d %, \d\.\d\d bits a weight\)", out)
    assert "21 linear layers with int8 values" in " ".join((tmp_path / "small/README.md").read_text().split())
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path / "small")])
    assert "version 2: 21 linears with int8 values, " in " ".join(capsys.readouterr().err.split())
    for arguments, message in (
        (["--format=bitmask", "--values=int3"], "--values is 'int3', expected none, int8, int4"),
        (["--format=dense", "--values=int8"], "--values is int8; it goes with --format bitmask"),
    ):
        with pytest.raises(SystemExit):
            main(["export", str(run), *arguments, "--out", str(tmp_path / "x")])
        assert message in " ".join(capsys.readouterr().err.split())
    tensors = load_file(run / "model/model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = float("inf")
    save_file(tensors, run / "model/model.safetensors", metadata={"format": "pt"})
    (run / "masks.safetensors").unlink()
    with pytest.raises(SystemExit):
        main(["export", str(run), "--format=bitmask", "--values=int4", "--out", str(tmp_path / "x")])
    assert "up_proj.weight cannot be stored as int4: it has weights that are infinite or NaN" in " ".join(
        capsys.readouterr().err.split()
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-dense", "small"]
