"""Prune smol-videollama2 with several methods and sparsities; print and save what each costs in quality.

    python perf/smol_videollama2_methods.py --sparsity 0.5 0.6 0.7

The dense model is scored once, beside its controls. Every pruned model is scored on the same questions,
teacher-forced. Cells that stand in the file already are not done again, so a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import AutoProcessor

import tamp_lightning
from tamp_lightning.cli.run import quieten
from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.evaluation.scoring import Scores, score
from tamp_lightning.evaluation.summary import summarise
from tamp_lightning.evaluation.whole import load_whole
from tamp_lightning.files import write_json
from tamp_lightning.passes.trainer import scoring_trainer
from tamp_lightning.runs.environment import environment
from tamp_lightning.testbeds.checkpoints import resolve
from tamp_lightning.testbeds.clip_samples import clip_samples
from tamp_lightning.testbeds.clip_suite import ClipSuite, Shown
from tamp_lightning.testbeds.clips import CATEGORIES

METHODS: dict[str, dict[str, Any]] = {
    "tamp": {},
    "constant": {"tokens": "all", "allocation": "constant"},
    "wanda": {"tokens": "all", "allocation": "uniform"},
    "sparsegpt": {"tokens": "all", "allocation": "uniform", "solver": "sparsegpt"},
    "magnitude": {"tokens": "all", "allocation": "uniform", "solver": "magnitude", "pattern": "matrix"},
    "atv": {"tokens": "atv", "allocation": "uniform"},
}
SEED, TURNS, BATCH = 42, 4, 8
CONTROLS: tuple[Shown, ...] = ("muted", "blank", "shuffled")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sparsity", nargs="+", type=float, default=[0.5, 0.6, 0.7])
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--drop-silence", action="store_true", help="leave padding silence out of the statistics")
    parser.add_argument("--slice", choices=["quick", "standard", "full"], default="quick")
    parser.add_argument("--split", choices=["selection", "test"], default="test")
    parser.add_argument("--out", type=Path, default=Path("perf/results/smol_videollama2_methods.json"))
    return parser.parse_args()


def shown(folder: Path, options: argparse.Namespace, kind: Shown) -> ClipSuite:
    return ClipSuite(AutoProcessor.from_pretrained(folder), options.split, options.slice, kind)


def dense_scores(folder: Path, options: argparse.Namespace, content: dict[str, Any]) -> Scores:
    """Score the dense model; its controls too, unless they stand in the file."""
    model, trainer = load_whole(folder, None), scoring_trainer(enable_progress_bar=False)
    dense = score(model, shown(folder, options, "own"), trainer)
    content.setdefault("dense", dense.results)
    for kind in CONTROLS:
        if kind not in content:
            content[kind] = score(model, shown(folder, options, kind), trainer).results
    return dense


def one(folder: Path, method: dict[str, Any], options: argparse.Namespace, dense: Scores) -> dict[str, Any]:
    """Prune a fresh copy of the model in memory and score it."""
    processor = AutoProcessor.from_pretrained(folder)
    samples = clip_samples(options.samples, SEED, TURNS)
    data = CalibrationData.from_samples(samples, processor, BATCH, options.drop_silence)
    model = load_whole(folder, None)
    result = tamp_lightning.prune(model, data, method=method, progress=False)
    suite = shown(folder, options, "own")
    metrics = summarise(
        [suite], [dense], [score(model, suite, scoring_trainer(enable_progress_bar=False), dense=dense)]
    )
    kept = ("retention", "corrected_retention", "flips", "fidelity", "benchmarks")
    return {"sparsity": result.sparsity, "seconds": result.seconds, **{k: metrics[k] for k in kept}}


def table(rows: list[dict[str, Any]]) -> Table:
    """One line per method and sparsity."""
    view = Table("method", "sparsity", "samples", "silence", *CATEGORIES, "retention", "above floor", "KL")
    for row in rows:
        above = row["corrected_retention"]
        view.add_row(
            row["method"],
            f"{100 * row['target']:.0f} %",
            str(row["samples"]),
            "dropped" if row["drop_silence"] else "kept",
            *(f"{100 * row['benchmarks'][k]['pruned']:.1f}" for k in CATEGORIES),
            f"{row['retention']:.1f}",
            "–" if above is None else f"{above:.1f}",
            f"{row['fidelity']['kl']:.3f}",
        )
    return view


def main() -> None:
    options, console = arguments(), Console(width=140)
    quieten()
    folder = resolve("smol-videollama2")
    content = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": []}
    if content.setdefault("checkpoint", folder.name) != folder.name:
        raise SystemExit(
            f"{options.out} holds results of {content['checkpoint']}, not of {folder.name}: choose another"
        )
    dense = dense_scores(folder, options, content)
    suite = shown(folder, options, "own")
    content |= {"floor": suite.chance(), "questions": len(suite.items), "split": options.split, **environment()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for sparsity in options.sparsity:
        for name in options.methods:
            cell = {
                "method": name,
                "target": sparsity,
                "samples": options.samples,
                "drop_silence": options.drop_silence,
            }
            if any(cell.items() <= row.items() for row in content["rows"]):
                continue
            content["rows"].append({**cell, **one(folder, {**METHODS[name], "sparsity": sparsity}, options, dense)})
            write_json(options.out, content)
            console.print(f"{name} at {sparsity:.2f}: KL {content['rows'][-1]['fidelity']['kl']:.3f}")
    write_json(options.out, content)
    console.print(table(content["rows"]))


if __name__ == "__main__":
    main()
