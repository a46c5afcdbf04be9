"""What a GPU has to show, most telling first, in at most nine minutes; a second call goes on where the first ended.

    python perf/gpu_check.py [--out FILE] [--minutes 9] [--again STAGE ...]
    python perf/gpu_check.py --small        # every line of it on a CPU, in minutes

Every stage has a process and a time limit of its own. FILE (perf/results/gpu_check.json) is written after each; a stage
that stands there as done is not run again. Needs this package and pytest; no network, no model hub. About 35 GB of disk
under $TAMP_CACHE, for the bed and one output.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
RESULT = HERE / "results" / "gpu_check.json"
TAIL = 1500
"""Characters of a stage's output that are kept where it failed."""
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default"]
SOME_TESTS = ("-m", "not gpu and not slow", "-k", "weighted or wanda")
"""In the small mode: all of them run in `make test` on the CPU."""
MANY, FEW = 128, 32
"""Samples: for what has a goal, and for what is only to be known."""


@dataclass(frozen=True)
class Stage:
    """A command with a time limit."""

    name: str
    seconds: int
    command: list[str]
    is_measured: bool = False
    """Whether its last line is JSON."""
    in_small: tuple[str, ...] | None = None
    """What is added to the command in the small mode; None: the stage is left out there."""
    always: bool = False
    """Whether it is run in every call."""


def work(what: str, seconds: int, samples: int = MANY, name: str = "", always: bool = False) -> Stage:
    command = [sys.executable, str(HERE / "gpu_work.py"), what, f"--samples={samples}"]
    return Stage(name or what, seconds, command, True, ("--small", "--samples=6", "--size=2"), always)


STAGES = [
    Stage("tests", 150, [*PYTEST, "-m", "gpu", "tests/gpu", "tests/kernels"], in_small=SOME_TESTS),
    work("bed", 120, always=True),
    work("forwards", 80),
    work("wanda", 100),
    work("tamp", 200),
    work("tamp_per_block", 130),
    work("forwards", 50, FEW, "forwards_few"),
    work("atv", 60, FEW),
    work("sparsegpt", 150, FEW),
    work("tamp_per_input", 100, FEW),
    work("admm", 150, FEW),
    work("one_shot_per_block", 60, FEW),
    Stage("payoff", 300, ["bash", str(HERE / "gpu_payoff.sh")]),
]


def run(stage: Stage, small: bool, limit: float) -> dict[str, Any]:
    """What a stage left; `done` is false where it failed or was stopped."""
    start, command = time.perf_counter(), [*stage.command, *(stage.in_small or () if small else ())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=HERE.parent,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, why = process.communicate(timeout=limit)[0], None
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, why = process.communicate()[0], f"stopped after {limit:.0f} s"
    wall = time.perf_counter() - start
    if why is None and process.returncode:
        why = f"exit code {process.returncode}"
    if why is not None:
        return {"done": False, "wall": wall, "why": why, "output": output[-TAIL:]}
    found = json.loads(output.strip().splitlines()[-1]) if stage.is_measured else {"output": output[-TAIL:]}
    return {"done": True, "wall": wall, **found}


def ratios(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each method to two bare forward passes of as many samples, and to Wanda where that has as many."""
    bare = {row["samples"]: row["seconds"] for row in found.values() if row["done"] and "ceiling_tflops" in row}
    methods = {name: row for name, row in found.items() if row["done"] and "by_walk" in row}
    wanda = {row["samples"]: row["seconds"] for name, row in methods.items() if name == "wanda"}
    return {
        name: {
            label: row["seconds"] / base[row["samples"]]
            for label, base in (("x forwards", bare), ("x Wanda", wanda))
            if row["samples"] in base
        }
        for name, row in methods.items()
    }


def table(found: dict[str, dict[str, Any]]) -> Table:
    view, compared = (
        Table("stage", "done", "wall s", "seconds", "GiB on the GPU", "x forwards", "x Wanda"),
        ratios(found),
    )
    for name, row in found.items():
        peak = (row.get("gpu_bytes") or {}).get("peak")
        cells = [f"{compared.get(name, {}).get(key, float('nan')):.2f}" for key in ("x forwards", "x Wanda")]
        cells = ["" if cell == "nan" else cell for cell in cells]
        taken = f"{row['seconds']:.2f}" if "seconds" in row else ""
        held = "" if peak is None else f"{peak / 2**30:.2f}"
        view.add_row(name, "yes" if row["done"] else row["why"], f"{row['wall']:.1f}", taken, held, *cells)
    return view


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--minutes", type=float, default=9.0, help="for all stages together")
    parser.add_argument("--again", nargs="*", default=[], help="stages to run though they are done")
    parser.add_argument("--small", action="store_true", help="tiny shapes, on whatever there is; times mean nothing")
    options = parser.parse_args()
    deadline = time.perf_counter() + 60 * options.minutes
    found: dict[str, Any] = json.loads(options.out.read_text())["stages"] if options.out.is_file() else {}
    for stage in STAGES:
        known = found.get(stage.name, {}).get("done") and stage.name not in options.again and not stage.always
        if known or (options.small and stage.in_small is None):
            continue
        left = deadline - time.perf_counter()
        if left < 10:
            break
        found[stage.name] = run(stage, options.small, left if options.small else min(stage.seconds, left))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        scratch = options.out.with_suffix(".tmp")
        scratch.write_text(json.dumps({"stages": found, "ratios": ratios(found)}, indent=1) + "\n")
        scratch.replace(options.out)
        print(f"{stage.name}: {'done' if found[stage.name]['done'] else found[stage.name]['why']}", flush=True)
    Console(width=120).print(table(found))
    sys.exit(0 if all(found.get(s.name, {}).get("done") for s in STAGES if not options.small or s.in_small) else 1)


if __name__ == "__main__":
    main()
