"""Prune smol-llava-next with several methods and sparsities; print and save what each costs in quality.

    python perf/smol_methods.py --sparsity 0.2 0.5 --methods tamp wanda --slice standard

The dense model is scored once. Every pruned model is scored on the same questions, teacher-forced.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import AutoProcessor

import tamp_lightning
from tamp_lightning.cli.run import quieten
from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.data.sources import from_easy_vqa
from tamp_lightning.evaluation.scoring import score
from tamp_lightning.evaluation.summary import summarise
from tamp_lightning.evaluation.whole import load_whole
from tamp_lightning.files import write_json
from tamp_lightning.passes.trainer import scoring_trainer
from tamp_lightning.runs.environment import environment, peak_memory_bytes
from tamp_lightning.testbeds.checkpoints import resolve
from tamp_lightning.testbeds.easy_vqa_suite import EasyVqaSuite, Pictures

METHODS: dict[str, dict[str, Any]] = {
    "tamp": {},
    "das": {"tokens": "all"},
    "amia": {"allocation": "uniform"},
    "constant": {"tokens": "all", "allocation": "constant"},
    "wanda": {"tokens": "all", "allocation": "uniform"},
}
SAMPLES, SEED, TURNS, BATCH = 128, 42, 4, 8


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["tamp", "constant", "wanda"])
    parser.add_argument("--sparsity", nargs="+", type=float, default=[0.5, 0.6, 0.7])
    parser.add_argument("--slice", choices=["quick", "standard", "full"], default="standard")
    parser.add_argument("--split", choices=["selection", "test"], default="test")
    parser.add_argument("--out", type=Path, default=Path("perf/results/smol_methods.json"))
    return parser.parse_args()


def one(folder: Path, method: dict[str, Any], suite: EasyVqaSuite, dense: Any) -> dict[str, Any]:
    """Prune a fresh copy of the model in memory and score it."""
    processor = AutoProcessor.from_pretrained(folder)
    data = CalibrationData.from_samples(from_easy_vqa(SAMPLES, SEED, TURNS), processor, BATCH)
    model = load_whole(folder, None)
    result = tamp_lightning.prune(model, data, method=method, progress=False)
    after = score(model, suite, scoring_trainer(enable_progress_bar=False), dense=dense)
    metrics = summarise([suite], [dense], [after])
    kept = ("retention", "corrected_retention", "flips", "fidelity", "benchmarks", "pruned")
    return {"sparsity": result.sparsity, "seconds": result.seconds, **{k: metrics[k] for k in kept}}


def table(rows: list[dict[str, Any]]) -> Table:
    """One line per method and sparsity."""
    view = Table("method", "sparsity", "yes/no", "shape", "colour", "retention", "above floor", "KL", "seconds")
    for row in rows:
        scores = [f"{100 * row['benchmarks'][k]['pruned']:.1f}" for k in ("yes_no", "shape", "colour")]
        spent = sum(row["seconds"].values())
        figures = (row["retention"], row["corrected_retention"])
        view.add_row(
            row["method"],
            f"{100 * row['target']:.0f} %",
            *scores,
            *(f"{f:.1f}" for f in figures),
            f"{row['fidelity']['kl']:.3f}",
            f"{spent:.0f}",
        )
    return view


def main() -> None:
    options, console, rows = arguments(), Console(width=120), []
    quieten()
    folder = resolve("smol-llava-next")
    pictures: Pictures = "own"
    suite = EasyVqaSuite(AutoProcessor.from_pretrained(folder), options.split, options.slice, pictures)
    dense = score(load_whole(folder, None), suite, scoring_trainer(enable_progress_bar=False))
    for sparsity in options.sparsity:
        for name in options.methods:
            start = time.perf_counter()
            row = one(folder, {**METHODS[name], "sparsity": sparsity}, suite, dense)
            rows.append({"method": name, "target": sparsity, **row})
            console.print(
                f"{name} at {sparsity:.2f}: {json.dumps(row['fidelity'])} {time.perf_counter() - start:.0f} s"
            )
            content = {"rows": rows, "dense": dense.results, "floor": suite.chance(), "questions": len(suite.items)}
            options.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(options.out, {**content, **environment(), "peak_memory_bytes": peak_memory_bytes()})
    console.print(table(rows))


if __name__ == "__main__":
    main()
