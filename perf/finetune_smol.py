"""Prune smol-llava-next with TAMP, finetune it for a fixed number of steps in each mode, score before and after.

    python perf/finetune_smol.py --work /tmp/finetune --steps 150

The control is the dense model finetuned with the same budget. Cells that the results file has are not run again, and
one that was cut goes on after its last checkpoint; checkpoints are deleted after each cell, the models stay in --work.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import AutoProcessor

from tamp_lightning.cli.run import quieten
from tamp_lightning.evaluation.scoring import Scores, score
from tamp_lightning.evaluation.whole import load_whole
from tamp_lightning.files import write_json
from tamp_lightning.metrics import retention
from tamp_lightning.passes.trainer import scoring_trainer
from tamp_lightning.runs.environment import environment
from tamp_lightning.testbeds.checkpoints import resolve
from tamp_lightning.testbeds.easy_vqa_suite import EasyVqaSuite

BED = "smol-llava-next"
CELLS = [
    ("dense", "full"),
    ("60", "full"),
    ("80", "full"),
    ("60", "distill"),
    ("60", "lora"),
    ("80", "distill"),
    ("80", "lora"),
]
KEPT = ("steps", "best", "held_out_loss", "learning_rate", "trained_parameters", "precision")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--slice", choices=["quick", "standard"], default="quick")
    parser.add_argument("--work", type=Path, default=Path("runs/finetune_smol"))
    parser.add_argument("--out", type=Path, default=Path("perf/results/finetune_smol.json"))
    return parser.parse_args()


def tamp(*command: str) -> None:
    """Run `tamp run ...` in a process of its own."""
    subprocess.run(
        [sys.executable, "-m", "tamp_lightning", "run", *command, "--trainer.enable_progress_bar=false"], check=True
    )


def pruned(work: Path, sparsity: str) -> str:
    """Run folder of the pruned model, made if it is missing; the bed itself for `dense`."""
    if sparsity == "dense":
        return BED
    run = work / f"tamp-{sparsity}"
    if not (run / "run.json").is_file():
        shutil.rmtree(run, ignore_errors=True)
        tamp("llava_next_tamp", f"--method.sparsity=0.{sparsity}", "--scores.benchmarks=none", f"--out={run}")
    return str(run)


def finetuned(options: argparse.Namespace, sparsity: str, mode: str) -> Path:
    """Run folder of the finetuned model, made if it is missing."""
    run = options.work / f"{sparsity}-{mode}-{options.steps}"
    if not (run / "run.json").is_file():
        shutil.rmtree(run / "model", ignore_errors=True)
        begun = (run / "checkpoints/last.ckpt").is_file()
        if not begun:
            shutil.rmtree(run, ignore_errors=True)
        steps = [f"--schedule.steps={options.steps}", "--scores.benchmarks=none", f"--out={run}"]
        extra = ["--allow_dense=true"] * (sparsity == "dense") + ["--resume=true"] * begun
        tamp("finetune_smol", f"--checkpoint={pruned(options.work, sparsity)}", f"--mode={mode}", *steps, *extra)
        shutil.rmtree(run / "checkpoints")
    return run


def scored(folder: Path, suite: EasyVqaSuite, dense: Scores | None) -> Scores:
    return score(load_whole(folder, None), suite, scoring_trainer(enable_progress_bar=False), dense=dense)


def figures(scores: Scores, dense: Scores, suite: EasyVqaSuite) -> dict[str, Any]:
    row = suite.headline(scores.results)
    return {
        "scores": row,
        "retention": retention(suite.headline(dense.results), row),
        "kl": scores.results.get("fidelity", {"kl": 0.0})["kl"],
    }


def table(content: dict[str, Any]) -> Table:
    """One line per model."""
    view = Table("sparsity", "mode", "yes/no", "shape", "colour", "retention", "KL", "held-out loss")
    for row in [*content["start"].values(), *content["cells"].values()]:
        scores = [f"{100 * row['scores'][k]:.1f}" for k in ("yes_no", "shape", "colour")]
        losses = row.get("held_out_loss")
        view.add_row(
            row["sparsity"],
            row["mode"],
            *scores,
            f"{row['retention']:.1f}",
            f"{row['kl']:.2f}",
            f"{losses[0]:.3f} → {min(losses[1:]):.3f}" if losses else "",
        )
    return view


def main() -> None:
    options, console = arguments(), Console(width=120)
    quieten()
    folder = resolve(BED)
    suite = EasyVqaSuite(AutoProcessor.from_pretrained(folder), "test", options.slice)
    setting = {"steps": options.steps, "slice": options.slice, "questions": len(suite.items), "floor": suite.chance()}
    content: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {}
    if any(content.get(key) != value for key, value in setting.items()):
        content = {**setting, "start": {}, "cells": {}}
    dense = scored(folder, suite, None)
    for sparsity, mode in CELLS:
        cell = f"{sparsity}-{mode}"
        if cell in content["cells"]:
            continue
        if sparsity not in content["start"]:
            start = (
                dense if sparsity == "dense" else scored(Path(pruned(options.work, sparsity)) / "model", suite, dense)
            )
            content["start"][sparsity] = {"sparsity": sparsity, "mode": "before", **figures(start, dense, suite)}
        run = finetuned(options, sparsity, mode)
        described = json.loads((run / "run.json").read_text())
        after = figures(scored(run / "model", suite, dense), dense, suite)
        content["cells"][cell] = {"sparsity": sparsity, "mode": mode, **after, **{k: described[k] for k in KEPT}}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, {**content, **environment()})
        console.print(cell, content["cells"][cell]["scores"])
    console.print(table(content))


if __name__ == "__main__":
    main()
