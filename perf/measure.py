"""What every speed benchmark shares: repeated timing, a file of results, a table."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from tamp_lightning.files import write_json
from tamp_lightning.runs.environment import environment, peak_memory_bytes

RESULTS = Path(__file__).parent / "results"


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median time of `work`, after one run that does not count."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def machine() -> dict[str, Any]:
    """Versions, processor, memory: what figures depend on."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return {**environment(), "processor": names[0] if names else platform.processor()}


def save(name: str, rows: Sequence[dict[str, Any]], **more: Any) -> None:
    """Write the rows to results/NAME.json and print them."""
    RESULTS.mkdir(exist_ok=True)
    content = {"rows": list(rows), **more, **machine(), "peak_memory_bytes": peak_memory_bytes()}
    write_json(RESULTS / f"{name}.json", content)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(*columns, title=name)
    for row in rows:
        table.add_row(*(_text(row.get(column, "")) for column in columns))
    Console(width=160).print(table)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
