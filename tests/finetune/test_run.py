"""Whole runs on a tiny model: what they leave, that zeros stay, resuming, stopping, refusals."""

import itertools
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tamp_lightning.config.finetune import DistillSection, FinetuneData, LoraSection
from tamp_lightning.config.recipe import ScoreChoice
from tamp_lightning.evaluation.whole import load_whole
from tamp_lightning.finetune.module import FinetuneModule
from tamp_lightning.passes.callbacks.keep_mask import MaskKeeper
from tamp_lightning.runs.folder import RunFolder


def described(run):
    return json.loads((run / "run.json").read_text())


def check_zeros(run, sparse):
    """Exactly the pruned weights are zero; gives how many of the others moved."""
    weights, before = (load_whole(folder / "model", None).state_dict() for folder in (run, sparse))
    moved = 0
    for name, mask in RunFolder(sparse).read_masks().items():
        weight = weights[f"{name}.weight"]
        assert not weight[~mask].any()
        moved += int((weight != before[f"{name}.weight"])[mask].sum())
    return moved


MODES = {
    "full": {"mode": "full"},
    "lora": {"mode": "lora", "lora": LoraSection(rank=4, alpha=8.0)},
    "distill": {"mode": "distill"},
    "distill blocks": {"mode": "distill", "distill": DistillSection(blocks=0.5, answers=0.1, temperature=2.0)},
}
CONDITIONS = {
    "plain": {},
    "accumulated": {"accumulate_grad_batches": 2},
    "mixed": {"precision": "bf16-mixed"},
    "bfloat16": {"precision": "bf16-true"},
}


QUICK = {"full-accumulated", "full-mixed", "full-bfloat16", "lora-plain", "distill blocks-plain"}


def pairs():
    for mode, condition in itertools.product(MODES, CONDITIONS):
        name = f"{mode}-{condition}"
        marks = () if name in QUICK else (pytest.mark.slow,)
        yield pytest.param(MODES[mode], CONDITIONS[condition], id=name, marks=marks)


@pytest.mark.parametrize(("mode", "trainer"), list(pairs()))
def test_zeros_stay_and_the_rest_is_trained(finetune, sparse, mode, trainer, monkeypatch):
    looked = []
    original = MaskKeeper.on_train_batch_end

    def watched(self, *args):
        original(self, *args)
        looked.append(all(not parameter[gone].any() for parameter, gone in self._gone))

    monkeypatch.setattr(MaskKeeper, "on_train_batch_end", watched)
    run = finetune(**mode, trainer=trainer)
    assert looked == [True] * 4 * trainer.get("accumulate_grad_batches", 1)
    assert check_zeros(run, sparse) > 1000
    content = described(run)
    assert (content["steps"], len(content["held_out_loss"])) == (4, 3)
    assert content["held_out_loss"][-1] < content["held_out_loss"][0]


def test_what_a_run_leaves(finetune, sparse, dense):
    run = finetune(scores=ScoreChoice(split="selection", slice="quick", batch_size=64))
    assert {p.name for p in run.iterdir()} == {
        "model", "masks.safetensors", "plan.json", "metrics.json", "run.json", "recipe.yaml", "logs", "checkpoints",
        "predictions.parquet", "report.html",
    }  # fmt: skip
    for name in ("masks.safetensors", "plan.json"):
        assert (run / name).read_bytes() == (sparse / name).read_bytes()
    content, metrics = described(run), json.loads((run / "metrics.json").read_text())
    assert content["source"] == described(sparse)["source"] == str(dense)
    assert content["start"] == str(sparse)
    assert content["sparsity"] == pytest.approx(0.6, abs=1e-4)
    assert set(metrics["scores"]) == {"dense", "before", "after"}
    assert set(metrics["retention"]) == {"before", "after"}
    assert metrics["results"]["after"]["fidelity"]["kl"] > 0
    assert metrics["gained"]["verdict"] in ("worse", "better", "no difference shown", "same within 1 point")
    assert "Right before, wrong after" in (run / "report.html").read_text()
    losses = (run / "logs/metrics.csv").read_text().splitlines()
    assert {"answers", "loss", "held_out_loss", "step"} <= set(losses[0].split(","))
    assert len(losses) == 1 + 4 + 3
    source, ours = (load_file(folder / "model/model.safetensors") for folder in (sparse, run))
    assert source.keys() == ours.keys()
    changed = {key for key in ours if not torch.equal(ours[key], source[key])}
    assert changed == {key for key in ours if "language_model.layers" in key or "language_model.model.layers" in key}


def test_a_run_is_itself_a_start(finetune, sparse):
    again = finetune("second", checkpoint=finetune("first"))
    assert check_zeros(again, sparse) > 1000
    assert described(again)["source"] == described(sparse)["source"]


def test_masks_told_from_zeros_make_a_whole_run_folder(finetune, sparse):
    run = finetune(checkpoint=sparse / "model")
    assert check_zeros(run, sparse) > 1000
    assert all(
        torch.equal(mask, RunFolder(sparse).read_masks()[name]) for name, mask in RunFolder(run).read_masks().items()
    )
    assert described(run)["source"] is None


def test_a_dense_control_has_no_masks(finetune, dense):
    run = finetune(checkpoint=dense, allow_dense=True)
    assert not (run / "masks.safetensors").exists()
    assert described(run)["sparsity"] == 0


@pytest.mark.parametrize(
    ("train", "moved"),
    [("decoder", {"model.language_model.embed_tokens.weight"}), ("all", {"model.image_newline", "lm_head.weight"})],
)
def test_more_than_the_blocks_is_trained_if_asked(finetune, sparse, train, moved):
    run = finetune(train=train, schedule={"weight_decay": 0.0})
    after, before = (load_whole(folder / "model", None).state_dict() for folder in (run, sparse))
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved <= changed
    assert any("vision_tower" in name for name in changed) == (train == "all")
    assert check_zeros(run, sparse) > 1000


@pytest.mark.parametrize(("mode", "train"), [("full", "all"), ("full", "blocks"), ("lora", "blocks")])
def test_pruned_towers_stay_as_sparse_as_they_are(finetune, sparse_towers, mode, train):
    run = finetune(checkpoint=sparse_towers, mode=mode, train=train)
    assert any("vision_tower" in name for name in RunFolder(run).read_masks())
    assert check_zeros(run, sparse_towers) > 1000
    assert described(run)["sparsity"] == pytest.approx(0.6, abs=1e-3)
    for name in ("masks.safetensors", "plan.json"):
        assert (run / name).read_bytes() == (sparse_towers / name).read_bytes()


class Crash(Exception):
    pass


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_resumed_run_ends_with_the_same_bits(finetune, monkeypatch, mode):
    schedule = {"steps": 6}
    whole = finetune("whole", mode=mode, schedule=schedule)
    seen = []
    original = FinetuneModule.training_step

    def crash(self, batch, index):
        seen.append(self.trainer.global_step)
        if len(seen) == 4:
            raise Crash
        return original(self, batch, index)

    monkeypatch.setattr(FinetuneModule, "training_step", crash)
    with pytest.raises(Crash):
        finetune("cut", mode=mode, schedule=schedule)
    cut = finetune("cut", mode=mode, schedule=schedule, resume=True)
    assert seen == [0, 1, 2, 3, 2, 3, 4, 5]
    assert (cut / "model/model.safetensors").read_bytes() == (whole / "model/model.safetensors").read_bytes()
    for key in ("held_out_loss", "best", "steps"):
        assert described(cut)[key] == described(whole)[key]
    assert {p.name for p in cut.glob("logs*")} == {"logs", "logs_1"}


def test_checkpoints_hold_tensors_and_plain_values_and_nothing_frozen(finetune):
    run = finetune()
    for name in ("last", "best"):
        content = torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)
        assert all(key.startswith("model.model.language_model.layers.") for key in content["state_dict"])
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_training_stops_when_it_gets_worse_and_the_best_is_kept(finetune):
    schedule = {"steps": 40, "check_every": 1, "patience": 2, "lr": 0.3, "warmup": 0}
    run = finetune(schedule=schedule)
    content = described(run)
    losses = content["held_out_loss"]
    assert content["steps"] == len(losses) - 1 < 40
    assert content["best"] == losses.index(min(losses[1:]), 1)
    assert content["steps"] == content["best"] + 2
    again = finetune("again", checkpoint=run, schedule={"steps": 1, "warmup": 0, "check_every": 1})
    assert described(again)["held_out_loss"][0] == pytest.approx(min(losses[1:]), rel=1e-4)


def test_own_conversations(finetune, sparse, tmp_path, llava_json):
    run = finetune(data=FinetuneData(source="llava_json", path=str(llava_json), batch=2, held_out=2))
    assert check_zeros(run, sparse) > 1000
    assert described(run)["held_out_loss"][-1] < described(run)["held_out_loss"][0]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "lora", "distill"])
def test_two_processes(sparse, tmp_path, mode):
    """In a process of their own, since Lightning starts the second by running the program again."""
    run = tmp_path / "run"
    options = {
        "checkpoint": sparse, "mode": mode, "schedule.steps": 4, "schedule.check_every": 2, "schedule.warmup": 1,
        "schedule.weight_decay": 0.1, "schedule.lr": 0.01, "data.batch": 1, "data.questions": 2, "data.held_out": 3,
        "scores.split": "selection", "scores.batch_size": 64, "trainer.devices": 2, "trainer.strategy": "ddp",
        "trainer.accelerator": "cpu", "trainer.enable_progress_bar": "false", "out": run,
    }  # fmt: skip
    command = [sys.executable, "-m", "tamp_lightning", "run", "finetune_smol"]
    command += [f"--{key}={value}" for key, value in options.items()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert check_zeros(run, sparse) > 1000
    assert (described(run)["processes"], described(run)["steps"]) == (2, 4)
    assert described(run)["held_out_loss"][-1] < described(run)["held_out_loss"][0]
    assert set(json.loads((run / "metrics.json").read_text())["scores"]) == {"dense", "before", "after"}
