"""On a GPU: the Triton product with LLaVA-NeXT-8B's linears beside cuBLAS, and 2:4 products beside dense ones.

    python perf/gpu_kernels.py

Decode: one input, bfloat16, copies enough to exceed the cache, dense and compressed in turn. Prefill: 2:4 weights
through cuSPARSELt with the algorithm that its own search finds for each shape. Times are of CUDA events, medians.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from tamp_lightning.files import write_json
from tamp_lightning.kernels import gpu
from tamp_lightning.kernels.form import Bitmask
from tamp_lightning.kernels.sparse_units import CuSparseLt
from tamp_lightning.ops.rounding import round_weight
from tamp_lightning.runs.environment import environment

SHAPES = {"q, o": (4096, 4096), "k, v": (1024, 4096), "gate, up": (14336, 4096), "down": (4096, 14336)}
TOKENS = (64, 512, 2048)
COPIES = 4


def milliseconds(calls: dict[str, Callable[[int], Tensor]], repeats: int = 30) -> dict[str, list[float]]:
    """Of each call, in turn, on copy after copy; the first round of each warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + COPIES):
        for name, call in calls.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call(turn % COPIES)
            end.record()
            torch.cuda.synchronize()
            if turn >= COPIES:
                times[name].append(start.elapsed_time(end))
    return times


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def random_weight(shape: tuple[int, int], kept: Tensor) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16) * kept


def decode(shape: tuple[int, int], sparsity: float) -> dict[str, Any]:
    """One input: dense by cuBLAS, compressed by Triton."""
    dense = [random_weight(shape, torch.rand(shape, device="cuda") >= sparsity) for _ in range(COPIES)]
    held = [Bitmask.of_dense(weight) for weight in dense]
    x = torch.randn(1, shape[1], device="cuda", dtype=torch.bfloat16)
    whole = [rounded(weight) for weight in dense]
    error = (gpu.multiply(held[0], x, None) - functional.linear(x, dense[0])).abs().max()
    calls = {
        "dense": lambda i: functional.linear(x, dense[i]),
        "compressed": lambda i: gpu.multiply(held[i], x, None),
        "int8": lambda i: gpu.multiply(whole[i], x, None),
    }
    times = milliseconds(calls)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {"ratio": medians["dense"] / medians["compressed"], "int8_ratio": medians["dense"] / medians["int8"]}
    return {**{name: spread(values) for name, values in times.items()}, **ratios, "largest_error": error.item()}


def rounded(weight: Tensor) -> Bitmask:
    """The compressed weight with whole numbers of 8 bits."""
    codes, scales = round_weight(weight, 8)
    kept = weight != 0
    return Bitmask.of_mask(codes[kept], kept, scales, torch.bfloat16)


def prefill(shape: tuple[int, int], tokens: int) -> dict[str, Any]:
    """2:4 as `runtime="semi_structured"` has it, default and searched algorithm, beside cuBLAS."""
    units = CuSparseLt()
    kept = torch.tensor([1, 1, 0, 0], device="cuda", dtype=torch.bool).repeat(shape[0], shape[1] // 4)
    weight = random_weight(shape, kept)
    packed = units.compress(weight)
    x = torch.randn(tokens, shape[1], device="cuda", dtype=torch.bfloat16)
    found = units.search(packed, x)
    calls = {
        "dense": lambda _: functional.linear(x, weight),
        "default": lambda _: units.multiply(packed, x, None, 0),
        "searched": lambda _: units.multiply(packed, x, None, found),
    }
    times = milliseconds(calls)
    ratio = statistics.median(times["dense"]) / statistics.median(times["searched"])
    return {**{name: spread(values) for name, values in times.items()}, "ratio": ratio, "algorithm": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("perf/results/gpu_kernels.json"))
    options, rows = parser.parse_args(), []
    view = Table("what", "linear", "dense ms", "sparse ms", "ratio", "int8 ratio")
    for sparsity in (0.5, 0.7):
        for name, shape in SHAPES.items():
            result = decode(shape, sparsity)
            rows.append({"what": "decode", "sparsity": sparsity, "linear": name, **result})
            cells = [f"{result[form]['median']:.3f}" for form in ("dense", "compressed")]
            view.add_row(f"decode, {sparsity}", name, *cells, f"{result['ratio']:.2f}", f"{result['int8_ratio']:.2f}")
    for tokens in TOKENS if torch.backends.cusparselt.is_available() else ():
        for name, shape in SHAPES.items():
            result = prefill(shape, tokens)
            rows.append({"what": "2:4", "tokens": tokens, "linear": name, **result})
            cells = [f"{result[form]['median']:.3f}" for form in ("dense", "searched")]
            view.add_row(f"2:4, {tokens} tokens", name, *cells, f"{result['ratio']:.2f}", "")
    write_json(options.out, {"rows": rows, **environment()})
    Console(width=100).print(view)


if __name__ == "__main__":
    main()
