"""How many tokens counted in a run and how many of them were text, by block and by kind of linear.

python perf/token_choice.py runs/RUN
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table


def rows(linears: dict[str, Any], group: Callable[[str], str]) -> dict[str, tuple[float, float]]:
    """Group of linears -> tokens that counted per sample, and share of text among them, averaged over its linears."""
    found: dict[str, list[Any]] = {}
    for name, row in linears.items():
        found.setdefault(group(name), []).append(row)
    return {
        key: (fmean(r["tokens_per_sample"] for r in own), fmean(r["token_share"]["text"] for r in own))
        for key, own in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    folder = parser.parse_args().run
    linears = json.loads((folder / "plan.json").read_text())["linears"]
    offered = json.loads((folder / "examples.json").read_text())["calibration_tokens"]
    table = Table("linears", "tokens a sample", "text among them")
    table.add_row("calibration tokens", "", f"{offered['text'] / sum(offered.values()):.1%}")
    for group in (
        lambda name: "all linears",
        lambda name: name.rpartition(".")[2],
        lambda name: f"block {int(name.split('.layers.')[1].split('.')[0]) + 1}",
    ):
        table.add_section()
        for key, (count, text) in rows(linears, group).items():
            table.add_row(key, f"{count:.1f}", f"{text:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
