"""The recipe of the audio-visual bed from end to end, on a tiny random model of its class."""

import json

import pytest
from rich.console import Console

from tamp_lightning.cli.parsing import parse
from tamp_lightning.tasks.prune import run_prune
from tamp_lightning.tasks.prune_setup import prepare
from tamp_lightning.testbeds import clip_suite as clips

from ..fixtures.clips import save_tiny_bed

pytest.importorskip("av")
PAIRS = {"text-text", "text-video", "text-audio", "video-video", "video-audio", "audio-audio"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_bed(tmp_path_factory.mktemp("tiny") / "bed")


@pytest.fixture
def prune(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("TAMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(clips.SLICES, "demo", 1)
    monkeypatch.setattr(clips, "DESIGN", 16)

    def call(name, *more):
        fixed = [f"--model.checkpoint={checkpoint}", f"--out={tmp_path / name}", "--calibration.samples=6"]
        recipe, path, text = parse("videollama2_tamp", [*fixed, "--trainer.accelerator=cpu", *more])
        out = run_prune(prepare(recipe, path.stem, text), Console(quiet=True))
        files = {p.name: json.loads(p.read_text()) for p in sorted(out.glob("*.json"))}
        return files["plan.json"]["linears"], files.get("metrics.json"), files["run.json"]

    return call


def shares(linears, modality):
    return [row["token_share"][modality] for row in linears.values()]


def test_tamp_sees_all_six_pairs_of_modalities(prune):
    linears, metrics, run = prune("tamp")
    assert all(set(row["cosine"]) == PAIRS for row in linears.values())
    assert all(min(row["token_share"][m] for m in ("text", "video", "audio")) > 0 for row in linears.values())
    assert run["sparsity"] == pytest.approx(0.5, abs=1e-4)
    assert set(metrics["benchmarks"]) == {"vision", "sound", "both", "order"}
    assert metrics["fidelity"]["kl"] > 0
    assert len({row["kept"] / row["size"] for row in linears.values()}) > 2


def test_atv_ranks_audio_among_the_other_tokens(prune):
    linears, *_ = prune("atv", "--method.tokens=atv", "--method.allocation=uniform", "--scores.benchmarks=none")
    assert min(shares(linears, "audio")) > 0
    assert min(shares(linears, "text")) > max(shares(linears, "audio"))


def test_silence_can_be_left_out_of_the_statistics(prune):
    wanda = ("--method.tokens=all", "--method.allocation=uniform", "--scores.benchmarks=none")
    whole, *_ = prune("whole", *wanda)
    lean, *_ = prune("lean", *wanda, "--calibration.drop_silence=true")
    name = next(iter(whole))
    # 8 of the 22 audio tokens are silence after the four seconds that are heard
    ratio = lean[name]["token_share"]["audio"] / lean[name]["token_share"]["video"]
    assert ratio == pytest.approx(14 / 16)
    assert whole[name]["token_share"]["audio"] / whole[name]["token_share"]["video"] == pytest.approx(22 / 16)
    assert any(lean[n]["sha256"] != whole[n]["sha256"] for n in whole)


def test_silence_cannot_be_dropped_for_a_processor_that_does_not_know_it(processor):
    from tamp_lightning.data.calibration import Collator

    with pytest.raises(ValueError, match=r"drop_silence is true, but LlavaNextProcessor cannot tell silent tokens"):
        Collator(processor, drop_silence=True)
