"""One stage of perf/gpu_check.py in a process of its own; prints one line of JSON.

python perf/gpu_work.py bed | forwards | METHOD [--small] [--samples N] [--size N]
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from gpu_bed import LARGE, SMALL, Bed, block_flops

from tamp_lightning.cli.run import quieten
from tamp_lightning.config.build import build
from tamp_lightning.methods.method import Method
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.resources import cache_folder
from tamp_lightning.runs.environment import environment, peak_memory_bytes
from tamp_lightning.stream.calls import record_calls
from tamp_lightning.stream.disk import DiskStream

PLAIN: dict[str, Any] = {"tokens": "all", "allocation": "uniform"}
METHODS: dict[str, dict[str, Any]] = {
    "wanda": PLAIN,
    "tamp": {},
    "tamp_per_block": {"amia": {"per": "block"}},
    "tamp_per_input": {"amia": {"per": "input"}},
    "one_shot_per_block": {"mode": "one_shot", "amia": {"per": "block"}},
    "atv": {"tokens": "atv", "allocation": "uniform"},
    "sparsegpt": {**PLAIN, "solver": "sparsegpt"},
    "admm": {**PLAIN, "solver": "admm"},
}


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> float:
    """Let the device finish; what the time is then."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def ceiling(rows: int, width: int, out: int) -> float:
    """Products of a bfloat16 matrix that the device makes in a second, in floating point operations."""
    left, right = (torch.randn(*shape, device=device()).bfloat16() for shape in ((rows, width), (width, out)))
    times = []
    for _ in range(6):
        start = wait()
        left @ right
        times.append(wait() - start)
    return 2 * rows * width * out / min(times)


def in_memory(stream: DiskStream) -> None:
    """Bytes a second from the disk to the device, of the first block, for what follows does not count it."""
    stream.load(0)
    stream.release(0)


@torch.no_grad()
def forwards(bed: Bed, samples: int, size: int) -> dict[str, Any]:
    """Two passes of every sample through all blocks, and nothing else; reading the blocks is timed apart."""
    with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
        stream = DiskStream(bed.folder, Path(scratch) / "model", device=device())
        in_memory(stream)
        start, ready = wait(), []
        for batch in bed.calibration(samples, size).loader:
            inputs = {k: v.to(device()) for k, v in batch.items() if k not in ("sample_ids", "valid")}
            valid = batch["valid"].to(device())
            hidden, calls = record_calls(stream.model, stream.facts.blocks, {**inputs, "attention_mask": valid.long()})
            blocks = list(stream.model.get_submodule(stream.facts.blocks).children())
            ready.append((hidden, calls.drop_causal_mask(blocks, valid)))
        embedded = wait() - start
        passing = reading = 0.0
        for index in range(len(stream.facts.linears)):
            start = wait()
            block = stream.load(index)
            reading += wait() - start
            start = wait()
            for k, (hidden, calls) in enumerate(ready):
                block(hidden, **calls.kwargs[calls.kinds[index]])
                ready[k] = block(hidden, **calls.kwargs[calls.kinds[index]]), calls
            passing += wait() - start
            stream.release(index)
    text = bed.model().config.get_text_config()
    flops = 2 * len(stream.facts.linears) * block_flops(bed, samples)
    best = ceiling(size * bed.tokens, text.hidden_size, text.intermediate_size)
    return {
        "seconds": passing + embedded,
        "passes": passing,
        "embedding": embedded,
        "reading": reading,
        "ceiling_tflops": best / 1e12,
        "forward_tflops": flops / passing / 1e12,
    }


def measured(bed: Bed, name: str, samples: int, size: int) -> dict[str, Any]:
    """A whole run of a method, reading and writing included."""
    on_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
        start = wait()
        stream = DiskStream(bed.folder, Path(scratch) / "model", device=device())
        prepared = wait() - start
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated() if on_gpu else 0
        method = build(Method, METHODS[name], "method")
        trainer: dict[str, Any] = {"accelerator": "gpu" if on_gpu else "cpu"}
        pruned = prune_stream(stream, bed.calibration(samples, size), method, progress=False, **trainer)
        peak = torch.cuda.max_memory_allocated() if on_gpu else None
        shutil.rmtree(Path(scratch) / "model")
    linears = pruned.linears.values()
    passes = len(method.measure_stages) + 1 + len(method.prune_stages)
    return {
        "seconds": sum(pruned.seconds.values()),
        "by_walk": pruned.seconds,
        "seconds_per_pass": sum(pruned.seconds.values()) / passes / len(stream.facts.linears),
        "preparing": prepared,
        "sparsity": pruned.sparsity,
        "tokens_per_sample": sum(row["tokens_per_sample"] for row in linears) / len(pruned.linears),
        "gpu_bytes": None if peak is None else {"peak": peak, "skeleton": held},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["bed", "forwards", *METHODS])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--size", type=int, default=8, help="samples in a batch")
    options = parser.parse_args()
    quieten()
    bed, start = SMALL if options.small else LARGE, time.perf_counter()
    cache_folder().mkdir(parents=True, exist_ok=True)
    if options.what == "bed":
        found: dict[str, Any] = {"folder": str(bed.make()), "seconds": time.perf_counter() - start}
    else:
        bed.make()
        work = (options.samples, options.size)
        found = forwards(bed, *work) if options.what == "forwards" else measured(bed, options.what, *work)
        found |= {"samples": options.samples, "tokens": bed.tokens, "batch": options.size}
    print(json.dumps({**found, "peak_memory_bytes": peak_memory_bytes(), **environment()}))


if __name__ == "__main__":
    main()
