"""The table of docs/memory.md: what three models would take on one and on eight H100s, none of which was measured.

python perf/plans.py
"""

from __future__ import annotations

from dataclasses import replace

from tamp_lightning.methods.method import Method
from tamp_lightning.tasks.forecast import Machine, Shape, forecast

GIB = 2**30
SHAPES = {
    "LLaVA-NeXT-8B": Shape(
        blocks=32, hidden=4096, weights=32 * 218_112_000, active=32 * 218_112_000, largest_block=218_112_000,
        largest_linear=14336 * 4096, widest=14336, outside=128_256 * 4096 + 324_000_000, head=128_256 * 4096,
    ),
    "Llama-3-70B": Shape(
        blocks=80, hidden=8192, weights=80 * 855_654_400, active=80 * 855_654_400, largest_block=855_654_400,
        largest_linear=28672 * 8192, widest=28672, outside=128_256 * 8192, head=128_256 * 8192,
    ),
    "Qwen3-VL-235B-A22B": Shape(
        blocks=94, hidden=4096, weights=94 * 2_487_746_560, active=94 * 222_822_400, largest_block=2_487_746_560,
        largest_linear=8192 * 4096, widest=8192, outside=151_936 * 4096 + 600_000_000, head=151_936 * 4096,
    ),
}  # fmt: skip
METHODS = {"Wanda": Method(tokens="all", allocation="uniform"), "TAMP": Method()}


def main() -> None:
    names = ("passes, s", "read and move, s", "solve, send, write, s", "GPU, GiB", "cache, GiB", "disk, GB")
    print(f"| model | method | GPUs | {' | '.join(names)} |")
    print("|---" * (3 + len(names)) + "|")
    for name, shape in SHAPES.items():
        for label, method in METHODS.items():
            for processes in (1, 8):
                machine = Machine(processes=processes)
                found = forecast(shape, machine, method)
                at_once = forecast(shape, replace(machine, disk_gb=1e9, bus_gb=1e9), method)
                passes = at_once.seconds["measure"] + at_once.seconds["prune"]
                moving = found.seconds["measure"] + found.seconds["prune"] - passes
                rest = sum(found.seconds[key] for key in ("solve", "send", "write"))
                cache = found.memory["activation cache"] / GIB
                held = sum(found.memory.values()) / GIB - cache - found.memory["libraries"] / GIB
                disk = sum(found.disk.values()) / 1e9
                cells = [f"{value:.0f}" for value in (passes, moving, rest)] + [
                    f"{held:.1f}",
                    f"{cache:.1f}",
                    f"{disk:.0f}",
                ]
                print(f"| {name} | {label} | {processes} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
