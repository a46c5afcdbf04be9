"""The forms of a benched checkpoint side by side in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from tamp_lightning.tasks.bench_worker import COMPRESSED


def table(results: Sequence[dict[str, Any]]) -> Table:
    """One row per form: medians with the least and the most, and decoding beside the fastest dense form."""
    view = Table("form", "dtype", "linears", "model MB", "peak MB", "prefill ms", "tokens/s", "decode")
    dense = [r["tokens_per_second"]["median"] for r in results if r["form"] != COMPRESSED]
    for result in results:
        speed = result["tokens_per_second"]
        view.add_row(
            result["form"],
            result["dtype"],
            _weights(result),
            f"{result['model_bytes'] / 1e6:.0f}",
            f"{result['peak']['max'] / 1e6:.0f}",
            _cell(result["prefill_seconds"], 1000, 0),
            _cell(speed, 1, 2),
            f"{speed['median'] / max(dense):.2f}x" if dense else "",
        )
    return view


def _weights(result: dict[str, Any]) -> str:
    """What compressed linears hold, and how many bits a weight that is."""
    if not result["compressed_weights"]:
        return ""
    return f"{result['values']}, {8 * result['compressed_bytes'] / result['compressed_weights']:.1f} bits"


def _cell(spread: dict[str, Any], scale: float, digits: int) -> str:
    low, middle, high = (f"{scale * spread[name]:.{digits}f}" for name in ("min", "median", "max"))
    return f"{middle} ({low} to {high})"
