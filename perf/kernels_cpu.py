"""Products of one input with the linears of LLaVA-NeXT-8B's language model, dense and compressed, side by side.

    python perf/kernels_cpu.py --threads 2

Compressed: values of bfloat16, int8 and int4. Dense runs in each dtype, in turn with the compressed forms; every
repeat takes another copy of the weights, so that they come from memory as they do when a model decodes. Ratios are to
the fastest dense dtype.
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
from tamp_lightning.ops.rounding import BITS, round_weight
from tamp_lightning.runs.environment import environment

SHAPES = {"q, o": (4096, 4096), "k, v": (1024, 4096), "gate, up": (14336, 4096), "down": (4096, 14336)}
IN_A_BLOCK = {"q, o": 2, "k, v": 2, "gate, up": 2, "down": 1}
COPIES = 2
FORMS = ("compressed", "int8", "int4")


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
        whole = {name: rounded(tile.bfloat16(), name, shape[0] // 64) for name in BITS}
        held.append({"compressed": Bitmask.of_dense(weight), **whole})
    inputs = {dtype: torch.randn(1, shape[1]).to(getattr(torch, dtype)) for dtype in dense[0]}
    times: dict[str, list[float]] = {form: [] for form in (*FORMS, *inputs)}
    for turn in range(repeats + COPIES):
        copy = turn % COPIES
        taken = {f: seconds(lambda c=copy, f=f: cpu.multiply(held[c][f], inputs["bfloat16"], None)) for f in FORMS}
        for dtype, x in inputs.items():
            taken[dtype] = seconds(lambda c=copy, d=dtype, x=x: functional.linear(x, dense[c][d]))
        if turn >= COPIES:  # the first round warms up
            for form, value in taken.items():
                times[form].append(value)
    return times


def rounded(tile: Tensor, name: str, copies: int) -> Bitmask:
    """A tile of the weight, so many times one below the other, with whole numbers."""
    codes, scales = round_weight(tile, BITS[name])
    kept = (tile != 0).repeat(copies, 1)
    values = codes[tile != 0].repeat(copies)
    if name == "int4":
        pairs = functional.pad(values, (0, len(values) % 2)).view(-1, 2)
        values = ((pairs[:, 0] & 15) | (pairs[:, 1] << 4)).view(torch.uint8)
    return Bitmask.of_mask(values, kept, scales.repeat(copies, 1), torch.bfloat16)


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, extremes, and the median of the ratios taken repeat by repeat."""
    medians = {form: statistics.median(values) for form, values in times.items()}
    fastest = min((form for form in medians if form not in FORMS), key=lambda form: medians[form])
    found = {}
    for form in FORMS:
        ratios = [dense / ours for dense, ours in zip(times[fastest], times[form], strict=True)]
        found[form] = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    extremes = {form: (min(values), max(values)) for form, values in times.items()}
    return {"median_seconds": medians, "extremes": extremes, "fastest_dense": fastest, "ratios": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("perf/results/kernels_cpu.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    assert cpu_library() is not None
    rows = []
    view = Table("sparsity", "linear", *(f"{form} ms" for form in (*FORMS, "float32", "bfloat16")), *FORMS)
    for sparsity in (0.5, 0.7):
        block = dict.fromkeys((*FORMS, "float32", "bfloat16"), 0.0)
        for name, shape in SHAPES.items():
            result = summary(measure(shape, sparsity, options.repeats))
            rows.append({"sparsity": sparsity, "linear": name, "shape": shape, **result})
            medians, ratios = result["median_seconds"], result["ratios"]
            for form in block:
                block[form] += IN_A_BLOCK[name] * medians[form]
            cells = [f"{1000 * medians[form]:.2f}" for form in block]
            cells += [f"{r['median']:.2f} ({r['min']:.2f} to {r['max']:.2f})" for r in (ratios[f] for f in FORMS)]
            view.add_row(f"{sparsity}", name, *cells)
        fastest = min(block["float32"], block["bfloat16"])
        cells = [f"{1000 * block[form]:.2f}" for form in block]
        view.add_row(f"{sparsity}", "a block", *cells, *(f"{fastest / block[form]:.2f}" for form in FORMS))
        rows.append({"sparsity": sparsity, "linear": "a block", "median_seconds": block})
    instructions = cpu.SETS[cpu.best_set()]
    write_json(options.out, {"rows": rows, "instructions": instructions, **environment()})
    Console(width=160).print(view)


if __name__ == "__main__":
    main()
