"""A tiny checkpoint that fits the bed's processor, and a run folder of `tamp run` made from it."""

import copy
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

from tamp_lightning.config.finetune import FinetuneData, Schedule
from tamp_lightning.config.recipe import CalibrationChoice, FinetuneRecipe, ModelChoice, PruneRecipe, ScoreChoice
from tamp_lightning.data.easy_vqa import load_picture
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.towers import Towers
from tamp_lightning.tasks.finetune import run_finetune
from tamp_lightning.tasks.prune import run_prune
from tamp_lightning.tasks.prune_setup import prepare

CPU = {"accelerator": "cpu", "enable_progress_bar": False}


@pytest.fixture(scope="session")
def dense(bed, processor, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dense") / "model"
    bed.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def prune(dense: Path, out: Path, towers: float = 0.0, **model) -> Path:
    recipe = PruneRecipe(
        model=ModelChoice(checkpoint=str(dense), **model),
        method=Method(sparsity=0.6),
        towers=Towers(sparsity=towers),
        calibration=CalibrationChoice(samples=2, turns=1),
        scores=ScoreChoice(benchmarks="none"),
        out=str(out),
        trainer=CPU,
    )
    return run_prune(prepare(recipe, "test", yaml.safe_dump(asdict(recipe))), Console(quiet=True))


@pytest.fixture(scope="session")
def sparse(dense, tmp_path_factory) -> Path:
    """Run folder of the pruned model."""
    return prune(dense, tmp_path_factory.mktemp("sparse") / "run")


@pytest.fixture(scope="session")
def sparse_towers(dense, tmp_path_factory) -> Path:
    """Run folder of the model with pruned towers."""
    return prune(dense, tmp_path_factory.mktemp("towers") / "run", towers=0.4)


@pytest.fixture
def finetune(sparse, tmp_path):
    """Runs a short recipe; keys override it. Gives the run folder."""

    def call(out: str = "out", **changes) -> Path:
        schedule = {"steps": 4, "warmup": 1, "check_every": 2, "patience": 0, "weight_decay": 0.1, "lr": 1e-2}
        trainer = {**CPU, **changes.pop("trainer", {})}
        recipe = FinetuneRecipe(
            checkpoint=str(changes.pop("checkpoint", sparse)),
            schedule=Schedule(**{**schedule, **changes.pop("schedule", {})}),
            data=changes.pop("data", FinetuneData(batch=2, questions=2, held_out=3)),
            scores=changes.pop("scores", ScoreChoice(benchmarks="none")),
            out=str(tmp_path / out),
            trainer=trainer,
            **changes,
        )
        return run_finetune(recipe, "test", "task: finetune\n", Console(quiet=True))

    return call


@pytest.fixture
def student(bed):
    """A copy of the tiny model that a test may change, and random masks that its weights obey."""
    model = copy.deepcopy(bed)
    generator = torch.Generator().manual_seed(1)
    masks = {}
    for name, module in model.named_modules():
        if ".language_model.layers." in name and isinstance(module, torch.nn.Linear):
            masks[name] = torch.rand(module.weight.shape, generator=generator) > 0.6
            module.weight.data.masked_fill_(~masks[name], 0)
    return model, masks


@pytest.fixture
def llava_json(tmp_path_factory) -> Path:
    """Six conversations of one or two turns, five with a picture."""
    folder = tmp_path_factory.mktemp("talks")
    rows = []
    for k in range(6):
        load_picture("train", k).save(folder / f"{k}.png")
        first = {"from": "human", "value": "what color is the shape?" if k == 5 else "<image>\nis there a circle?"}
        turns = [first, {"from": "gpt", "value": ["yes", "no", "red"][k % 3]}]
        if k % 2:
            turns += [{"from": "human", "value": "what is it?"}, {"from": "gpt", "value": "a blue triangle"}]
        rows.append({"conversations": turns, **({} if k == 5 else {"image": f"{k}.png"})})
    (folder / "talks.json").write_text(json.dumps(rows))
    return folder / "talks.json"
