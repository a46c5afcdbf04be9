"""`tamp bench`: what it prints and writes for tiny checkpoints, and what it refuses."""

import json

import pytest
import torch
from rich.console import Console

from tamp_lightning.tasks.bench import bench
from tamp_lightning.tasks.bench_worker import generate, load, prompt_ids

from ..export.conftest import bitmask, pruned_run
from ..stream.conftest import make_llama, save

pytestmark = pytest.mark.filterwarnings("ignore:the CPU kernel")  # it need not be there
SHORT = ["--device", "cpu", "--threads", "1", "--prompt", "4", "--tokens", "2", "--repeats", "2"]


def test_forms_are_measured_side_by_side(tmp_path):
    run = pruned_run(tmp_path / "run", make_llama(), dtype=torch.bfloat16)
    small = bitmask(run, tmp_path / "small")
    console = Console(width=80, record=True)
    bench([str(small), *SHORT, "--forms", "compressed,dense", "--out", str(tmp_path / "out.json")], console)
    shown = console.export_text()
    assert "compressed" in shown.splitlines()[1]
    assert "tokens/s" in shown
    assert "…" not in shown  # nothing is cut off in a terminal of 80 columns
    written = json.loads((tmp_path / "out.json").read_text())
    first, second = written["forms"]
    assert first["linears"] > 0 == second["linears"]
    assert first["values"] == "bfloat16"
    assert 8 * first["compressed_bytes"] < 12 * first["compressed_weights"]
    assert 0 < first["compressed_bytes"] < first["model_bytes"] < second["model_bytes"]
    for form in (first, second):
        assert len(form["tokens_per_second"]["all"]) == 2
        assert form["prefill_seconds"]["min"] <= form["prefill_seconds"]["median"] <= form["prefill_seconds"]["max"]
        assert form["peak"]["max"] > 0
    assert written["run_on"] == "cpu"
    assert written["threads"] == 1


@pytest.mark.parametrize("form", ["compressed", "dense", "dense-float32"])
def test_both_forms_say_the_same(tmp_path, form):
    run = pruned_run(tmp_path / "run", make_llama())
    model, plain = load(bitmask(run, tmp_path / "small"), form).eval(), load(run / "model", "dense").eval()
    ids = prompt_ids(model, 4)
    assert torch.equal(ids, prompt_ids(plain, 4))
    assert torch.allclose(model(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-5)
    timing = generate(model, ids, 3)
    assert timing["prefill_seconds"] > 0
    assert timing["tokens_per_second"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--forms", "sparse"], "--forms has 'sparse', expected some of compressed, dense, dense-float32, 2:4"),
        (["--forms", "dense,2:4", "--device", "cpu"], "--forms has 2:4, which needs --device cuda"),
        (["--repeats", "0"], "--repeats is 0, expected 1 or more"),
        (["--out", "nowhere/at/all.json"], "there is no folder"),
    ],
)
def test_refusals_come_before_any_work(tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr("tamp_lightning.tasks.bench.measure", lambda *_: pytest.fail("it went on"))
    with pytest.raises(ValueError, match=message):
        bench([str(save(make_llama(), tmp_path / "model")), *arguments], Console())


def test_a_dense_checkpoint_is_refused(tmp_path):
    folder = save(make_llama(), tmp_path / "model")
    with pytest.raises(ValueError, match="no linear that is sparse enough"):
        bench([str(folder), *SHORT, "--forms", "compressed"], Console())
