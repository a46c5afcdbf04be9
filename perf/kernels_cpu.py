"""Products of one input with the linears of LLaVA-NeXT-8B's language model, dense and compressed, side by side.

    python perf/kernels_cpu.py --threads 2

Dense runs in each dtype, in turn with the compressed form; every repeat takes another copy of the weights, so that
they come from memory as they do when a model decodes. Ratios are to the fastest dense dtype.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from tamp_lightning.files import write_json
from tamp_lightning.kernels import cpu
from tamp_lightning.kernels.build import cpu_library
from tamp_lightning.kernels.form import Bitmask
from tamp_lightning.runs.environment import environment

SHAPES = {"q, o": (4096, 4096), "k, v": (1024, 4096), "gate, up": (14336, 4096), "down": (4096, 14336)}
IN_A_BLOCK = {"q, o": 2, "k, v": 2, "gate, up": 2, "down": 1}
COPIES = 2


def seconds(call: Callable[[], Tensor]) -> float:
    """Of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(shape: tuple[int, int], sparsity: float, repeats: int) -> dict[str, list[float]]:
    """Seconds of every repeat by form."""
    generator = torch.Generator().manual_seed(0)
    dense, held = [], []
    for _ in range(COPIES):
        tile = torch.randn(64, shape[1], generator=generator)
        tile *= torch.rand(64, shape[1], generator=generator) >= sparsity
        weight = tile.bfloat16().repeat(shape[0] // 64, 1)
        dense.append({"float32": weight.float(), "bfloat16": weight})
        held.append(Bitmask.of_dense(weight))
    inputs = {dtype: torch.randn(1, shape[1]).to(getattr(torch, dtype)) for dtype in dense[0]}
    times: dict[str, list[float]] = {"compressed": [], **{dtype: [] for dtype in inputs}}
    for turn in range(repeats + COPIES):
        copy = turn % COPIES
        taken = {"compressed": seconds(lambda c=copy: cpu.multiply(held[c], inputs["bfloat16"], None))}
        for dtype, x in inputs.items():
            taken[dtype] = seconds(lambda c=copy, d=dtype, x=x: functional.linear(x, dense[c][d]))
        if turn >= COPIES:  # the first round warms up
            for form, value in taken.items():
                times[form].append(value)
    return times


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, extremes, and the median of the ratios taken repeat by repeat."""
    medians = {form: statistics.median(values) for form, values in times.items()}
    fastest = min((form for form in medians if form != "compressed"), key=lambda form: medians[form])
    ratios = [dense / ours for dense, ours in zip(times[fastest], times["compressed"], strict=True)]
    spread = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    extremes = {form: (min(values), max(values)) for form, values in times.items()}
    return {"median_seconds": medians, "extremes": extremes, "fastest_dense": fastest, "ratio": spread}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("perf/results/kernels_cpu.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    assert cpu_library() is not None
    rows, view = [], Table("sparsity", "linear", "compressed ms", "float32 ms", "bfloat16 ms", "ratio (min to max)")
    for sparsity in (0.5, 0.7):
        block = dict.fromkeys(("compressed", "float32", "bfloat16"), 0.0)
        for name, shape in SHAPES.items():
            result = summary(measure(shape, sparsity, options.repeats))
            rows.append({"sparsity": sparsity, "linear": name, "shape": shape, **result})
            medians, ratio = result["median_seconds"], result["ratio"]
            for form in block:
                block[form] += IN_A_BLOCK[name] * medians[form]
            cells = [f"{1000 * medians[form]:.2f}" for form in block]
            view.add_row(
                f"{sparsity}", name, *cells, f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
            )
        fastest = min(block["float32"], block["bfloat16"])
        cells = [f"{1000 * block[form]:.2f}" for form in block]
        view.add_row(f"{sparsity}", "a block", *cells, f"{fastest / block['compressed']:.2f}")
        rows.append({"sparsity": sparsity, "linear": "a block", "median_seconds": block})
    instructions = cpu.SETS[cpu.best_set()]
    write_json(options.out, {"rows": rows, "instructions": instructions, **environment()})
    Console(width=120).print(view)


if __name__ == "__main__":
    main()
