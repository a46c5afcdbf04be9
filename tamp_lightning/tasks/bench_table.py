"""The forms of a benched checkpoint side by side in the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table

from tamp_lightning.tasks.bench_worker import COMPRESSED


def table(results: Sequence[dict[str, Any]]) -> Table:
    """One column per form, so that a terminal of 80 columns holds three: medians, below them the least and the most,
    and decoding beside the fastest dense form."""
    view = Table("", *(result["form"] for result in results))
    dense = [r["tokens_per_second"]["median"] for r in results if r["form"] != COMPRESSED]
    best = max(dense, default=math.nan)
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "dtype": lambda r: r["dtype"],
        "linears": _weights,
        "model MB": lambda r: f"{r['model_bytes'] / 1e6:.0f}",
        "peak MB": lambda r: f"{r['peak']['max'] / 1e6:.0f}",
        "prefill ms": lambda r: _cell(r["prefill_seconds"], 1000, 0),
        "tokens/s": lambda r: _cell(r["tokens_per_second"], 1, 2),
        "beside dense": lambda r: f"{r['tokens_per_second']['median'] / best:.2f}x" if dense else "",
    }
    for name, cell in rows.items():
        view.add_row(name, *map(cell, results))
    return view


def _weights(result: dict[str, Any]) -> str:
    """What compressed linears hold, and how many bits a weight that is."""
    if not result["compressed_weights"]:
        return ""
    return f"{result['values']},\n{8 * result['compressed_bytes'] / result['compressed_weights']:.1f} bits"


def _cell(spread: dict[str, Any], scale: float, digits: int) -> str:
    low, middle, high = (f"{scale * spread[name]:.{digits}f}" for name in ("min", "median", "max"))
    return f"{middle}\n({low} to {high})"
