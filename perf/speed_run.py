"""Seconds of the measure and prune walks on smol-llava-next, beside the forward passes they cannot do without.

    python perf/speed_run.py wanda tamp
    python perf/speed_run.py --score wanda tamp tamp_per_block

Every method writes its checkpoint, as `tamp run` does. Rows of earlier calls stay in results/run.json unless measured
anew. With --score the pruned model answers the quick selection slice; KL is that to the dense model on answer tokens.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measure import RESULTS, save
from transformers import AutoProcessor

from tamp_lightning.cli.run import quieten
from tamp_lightning.config.build import build
from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.data.sources import easy_vqa_pool
from tamp_lightning.evaluation.scoring import score
from tamp_lightning.evaluation.summary import summarise
from tamp_lightning.evaluation.whole import load_whole
from tamp_lightning.methods.method import Method
from tamp_lightning.passes.trainer import prune_stream, scoring_trainer
from tamp_lightning.stream.calls import record_calls
from tamp_lightning.stream.disk import DiskStream
from tamp_lightning.stream.memory import MemoryStream
from tamp_lightning.testbeds.checkpoints import resolve
from tamp_lightning.testbeds.easy_vqa_suite import EasyVqaSuite

PLAIN: dict[str, Any] = {"tokens": "all", "allocation": "uniform"}
METHODS: dict[str, dict[str, Any]] = {
    "wanda": PLAIN,
    "magnitude": {**PLAIN, "solver": "magnitude"},
    "tamp": {},
    "tamp_per_input": {"amia": {"per": "input"}},
    "tamp_per_block": {"amia": {"per": "block"}},
    "tamp_64_tokens": {"amia": {"max_tokens": 64}},
    "sparsegpt": {**PLAIN, "solver": "sparsegpt", "pattern": "matrix"},
    "tamp_plus": {
        **PLAIN,
        "allocation": "constant",
        "constant": {"cap_margin": 0.05},
        "solver": "admm",
        "pattern": "matrix",
        "admm": {"damp": 0.02, "rho": 0.3},
    },
    "one_shot": {"mode": "one_shot"},
    "one_shot_per_block": {"mode": "one_shot", "amia": {"per": "block"}},
}
SAMPLES, SEED, TURNS, BATCH = 128, 42, 4, 8


def calibration(folder: Path, samples: int) -> CalibrationData:
    processor = AutoProcessor.from_pretrained(folder)
    return CalibrationData.from_samples(easy_vqa_pool(SEED, TURNS).draw(samples, SEED), processor, BATCH)


@torch.no_grad()
def bare_forwards(folder: Path, samples: int) -> float:
    """Two passes of every sample through all decoder blocks, and nothing else: what Wanda has to do at least."""
    stream = MemoryStream(load_whole(folder, None))
    inputs = [{k: v for k, v in b.items() if k not in ("sample_ids", "valid")} | {"valid": b["valid"]}
              for b in calibration(folder, samples).loader]  # fmt: skip
    ready = []
    for batch in inputs:
        valid = batch.pop("valid")
        hidden, calls = record_calls(stream.model, stream.facts.blocks, {**batch, "attention_mask": valid.long()})
        blocks = list(stream.model.get_submodule(stream.facts.blocks).children())
        ready.append((hidden, calls.drop_causal_mask(blocks, valid)))
    start = time.perf_counter()
    for _ in range(2):
        for hidden, calls in ready:
            for index in range(len(stream.facts.linears)):
                hidden = stream.load(index)(hidden, **calls.kwargs[calls.kinds[index]])
    return time.perf_counter() - start


def measured(folder: Path, name: str, samples: int, dense: Any, suite: EasyVqaSuite | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "model"
        method = build(Method, METHODS[name], "method")
        pruned = prune_stream(DiskStream(folder, out), calibration(folder, samples), method, progress=False)
        row = {"method": name, **{f"{k} s": v for k, v in pruned.seconds.items()}, "s": sum(pruned.seconds.values())}
        row["tokens/sample"] = sum(v["tokens_per_sample"] for v in pruned.linears.values()) / len(pruned.linears)
        if suite is not None:
            after = score(load_whole(out, None), suite, scoring_trainer(enable_progress_bar=False), dense=dense)
            row["KL"] = summarise([suite], [dense], [after])["fidelity"]["kl"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=list(METHODS), help=f"of {', '.join(METHODS)}")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--score", action="store_true")
    options = parser.parse_args()
    quieten()
    folder, file = resolve("smol-llava-next"), RESULTS / "run.json"
    rows = {row["method"]: row for row in json.loads(file.read_text())["rows"]} if file.is_file() else {}
    suite = EasyVqaSuite(AutoProcessor.from_pretrained(folder), "selection", "quick") if options.score else None
    quiet = scoring_trainer(enable_progress_bar=False)
    dense = score(load_whole(folder, None), suite, quiet) if suite else None
    bare = bare_forwards(folder, options.samples)
    rows["bare forwards"] = {"method": "bare forwards", "s": bare}
    wanda = None
    for name in options.methods:
        row = measured(folder, name, options.samples, dense, suite)
        wanda = row["s"] if name == "wanda" else wanda
        ratios = {"x forwards": row["s"] / bare} | ({"x Wanda": row["s"] / wanda} if wanda else {})
        kept = {"KL": rows[name]["KL"]} if "KL" in rows.get(name, {}) and "KL" not in row else {}
        rows[name] = {**row, **ratios, **kept, "samples": options.samples}
        save("run", list(rows.values()))


if __name__ == "__main__":
    main()
