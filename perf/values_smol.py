"""smol-llava-next-2 with values of fewer bits: what forms of equal size cost in answers, and in KL to the dense one.

    python perf/values_smol.py

Pruning is SparseGPT, uniform, by row. `afterwards`: the pruned model is exported with `--values`; `in the sweep`: the
solver rounds (`sparsegpt.values`) and the export keeps its numbers. Weights are those of the checkpoint's dtype, and
everything is computed in float32. Rows that the file has already are not computed again.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import AutoProcessor, PreTrainedModel

import tamp_lightning
from tamp_lightning.cli.run import quieten
from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.evaluation.scoring import score
from tamp_lightning.evaluation.summary import summarise
from tamp_lightning.evaluation.whole import load_whole
from tamp_lightning.export.values import Rounding, size_of, stored_parts
from tamp_lightning.files import write_json
from tamp_lightning.ops.rounding import BITS, from_codes, round_weight
from tamp_lightning.passes.trainer import scoring_trainer
from tamp_lightning.runs.environment import environment
from tamp_lightning.testbeds.checkpoints import resolve
from tamp_lightning.testbeds.skill_samples import skill_pool
from tamp_lightning.testbeds.skills import FormSuite

# name -> sparsity, values that the solver rounds to, values that the export rounds to
FORMS: dict[str, tuple[float, str, str]] = {
    "50 %, bfloat16": (0.5, "none", "none"),
    "50 %, int4, afterwards": (0.5, "none", "int4"),
    "50 %, int4, in the sweep": (0.5, "int4", "int4"),
    "dense, int4, afterwards": (0.0, "none", "int4"),
    "50 %, int8, afterwards": (0.5, "none", "int8"),
    "50 %, int8, in the sweep": (0.5, "int8", "int8"),
    "dense, int8, afterwards": (0.0, "none", "int8"),
    "74.2 %, bfloat16": (0.742, "none", "none"),
    "86.7 %, bfloat16": (0.867, "none", "none"),
    "dense, int4, in the sweep": (0.0, "int4", "int4"),
    "dense, int8, in the sweep": (0.0, "int8", "int8"),
}


def linears(model: PreTrainedModel) -> dict[str, torch.nn.Linear]:
    """Those of the decoder blocks."""
    found = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and ".layers." in n}
    return {name: module for name, module in found.items() if "language_model" in name}


def pruned(folder: Path, sparsity: float, values: str, samples: int) -> PreTrainedModel:
    """The model, pruned and rounded by its solver, in float32 numbers that bfloat16 holds."""
    model = load_whole(folder, torch.float32)
    if sparsity or values != "none":
        processor = AutoProcessor.from_pretrained(folder)
        data = CalibrationData.from_samples(skill_pool(42, 4, scenes=False).draw(samples, 42), processor, 8)
        choices = {"tokens": "all", "allocation": "uniform", "solver": "sparsegpt", "sparsegpt": {"values": values}}
        tamp_lightning.prune(model, data, method={**choices, "sparsity": sparsity}, progress=False)
    for module in linears(model).values():
        module.weight.data = module.weight.data.bfloat16().float()
    return model


def export(weight: Tensor, values: str) -> tuple[Tensor, float]:
    """The weight as an export gives it back, and its bits."""
    narrow = weight.detach().bfloat16()
    bits = narrow.view(torch.int16).numpy().view("uint16")
    rounding = None if values == "none" else Rounding(values, frozenset(["w"]))
    size = 8 * size_of(stored_parts("w", bits, "BF16", bits != 0, rounding)) / weight.numel()
    if values == "none":
        return weight, size
    return from_codes(*round_weight(narrow, BITS[values]), torch.bfloat16).float(), size


def exported(model: PreTrainedModel, values: str) -> float:
    """Round the linears as an export does, in place; bits a weight over all of them."""
    sizes, weights = 0.0, 0
    for module in linears(model).values():
        module.weight.data, bits = export(module.weight, values)
        sizes, weights = sizes + bits * module.weight.numel(), weights + module.weight.numel()
    return sizes / weights


def table(rows: list[dict[str, Any]]) -> Table:
    """One line per form."""
    view = Table("form", "bits", "yes/no", "shape", "colour", "retention", "KL")
    for row in sorted(rows, key=lambda row: -row["bits"]):
        scores = [f"{100 * row['benchmarks'][k]['pruned']:.1f}" for k in ("yes_no", "shape", "colour")]
        view.add_row(
            row["form"], f"{row['bits']:.2f}", *scores, f"{row['retention']:.1f}", f"{row['fidelity']['kl']:.4f}"
        )
    return view


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--slice", choices=["quick", "standard", "full"], default="quick")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--out", type=Path, default=Path("perf/results/values_smol.json"))
    options, console = parser.parse_args(), Console(width=120)
    quieten()
    folder = resolve("smol-llava-next-2")
    suite = FormSuite(AutoProcessor.from_pretrained(folder), "test", options.slice)
    scored: Callable[..., Any] = lambda model, **o: score(model, suite, scoring_trainer(enable_progress_bar=False), **o)  # noqa: E731
    dense = scored(load_whole(folder, torch.float32))
    asked = {"samples": options.samples, "slice": options.slice, "questions": len(suite.items)}
    held = json.loads(options.out.read_text()) if options.out.is_file() else {}
    rows = held["rows"] if {k: held.get(k) for k in asked} == asked else []
    console.print(f"dense: {dense.results}")
    models: dict[tuple[float, str], PreTrainedModel] = {}
    for form in [form for form in options.forms if form not in {row["form"] for row in rows}]:
        start = time.perf_counter()
        sparsity, solver, values = FORMS[form]
        if (sparsity, solver) not in models:
            models[sparsity, solver] = pruned(folder, sparsity, solver, options.samples)
        model = copy.deepcopy(models[sparsity, solver])
        bits = exported(model, values)
        metrics = summarise([suite], [dense], [scored(model, dense=dense)])
        kept = {key: metrics[key] for key in ("retention", "corrected_retention", "fidelity", "benchmarks")}
        rows.append({"form": form, "bits": bits, **kept})
        write_json(options.out, {"rows": rows, **asked, "dense": dense.results, **environment()})
        console.print(f"{form}: {bits:.3f} bits, KL {kept['fidelity']['kl']:.4f}, {time.perf_counter() - start:.0f} s")
    console.print(table(rows))


if __name__ == "__main__":
    main()
