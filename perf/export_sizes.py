"""Bytes, load seconds and memory of pruned smol-llava-next checkpoints, plain and in the bitmask form.

    tamp run wanda --method.sparsity=0.5 --scores.benchmarks=none --out runs/s50      # and 0.6, 0.7, wanda_2of4
    python perf/export_sizes.py runs/s50 runs/s60 runs/s70 runs/s2of4

Each load runs in a process of its own, the two forms in turn, with the files in the page cache. Peak memory is what
Linux counts for that process: anonymous memory, which the model needs, and file pages, which it gives back on demand.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tamp_lightning.export.job import Source, to_bitmask, to_dense
from tamp_lightning.files import sha256_of, write_json
from tamp_lightning.runs.environment import environment

LOAD = """
import json, sys, threading, time
import tamp_lightning
from transformers import AutoModelForImageTextToText, LlavaNextForConditionalGeneration
from transformers.utils import logging
logging.disable_progress_bar()
def held():
    lines = open("/proc/self/status").read().splitlines()
    return {k: 1024 * int(v.split()[0]) for k, v in (l.split(":") for l in lines if l.startswith("Rss"))}
before, peak, done = held(), {}, threading.Event()
def watch():
    while not done.wait(0.002):
        for name, value in held().items():
            peak[name] = max(peak.get(name, 0), value - before[name])
watcher = threading.Thread(target=watch)
if sys.argv[2] == "memory":
    watcher.start()
start = time.perf_counter()
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1], dtype="auto")
seconds = time.perf_counter() - start
done.set()
print(json.dumps({"seconds": seconds, "anonymous": peak.get("RssAnon"), "file": peak.get("RssFile")}))
"""
FORMS = ("dense", "bitmask")


def load(folder: Path, what: str) -> dict[str, Any]:
    """Seconds or peak memory of loading a checkpoint in a new process."""
    command = [sys.executable, "-c", LOAD, str(folder), what]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(run: Path, scratch: Path, repeats: int) -> dict[str, Any]:
    """Export a run, check that it comes back, and load both forms in turn."""
    start = time.perf_counter()
    sizes = to_bitmask(Source.find(run), scratch / "bitmask", lambda *_: {})
    middle = time.perf_counter()
    to_dense(Source.find(scratch / "bitmask"), scratch / "back", lambda *_: {})
    end = time.perf_counter()
    folders = {"dense": run / "model", "bitmask": scratch / "bitmask"}
    for path in folders["dense"].glob("*.safetensors"):
        assert sha256_of(path) == sha256_of(scratch / "back" / path.name), path
    bytes_of = {form: sum(p.stat().st_size for p in folders[form].glob("*.safetensors")) for form in FORMS}
    seconds: dict[str, list[float]] = {form: [] for form in FORMS}
    for _ in range(repeats):
        for form in FORMS:
            seconds[form].append(load(folders[form], "seconds")["seconds"])
    memory = {form: load(folders[form], "memory") for form in FORMS}
    bound = 2 * sizes.kept + sizes.weights / 8
    return {
        "run": run.name,
        "pruned_part": {**vars(sizes), "bound": bound},
        "files": {**bytes_of, "bound": bytes_of["dense"] - sizes.dense + bound},
        "load_seconds": {form: {"median": statistics.median(v), "all": v} for form, v in seconds.items()},
        "load_memory": {form: {k: memory[form][k] for k in ("anonymous", "file")} for form in FORMS},
        "export_seconds": {"to_bitmask": middle - start, "to_dense": end - middle},
    }


def table(rows: list[Mapping[str, Any]]) -> Table:
    """One line per run, in MB (10^6 bytes)."""
    heads = ("run", "pruned part", "now", "bound", "of dense", "file", "now", "bound", "load s", "now", "memory", "now")
    view = Table(*heads)
    for row in rows:
        part, files = row["pruned_part"], row["files"]
        cells = [part["dense"], part["encoded"], part["bound"], None, files["dense"], files["bitmask"], files["bound"]]
        text = [f"{value / 1e6:.2f}" if value else f"{100 * part['encoded'] / part['dense']:.2f} %" for value in cells]
        seconds = [f"{row['load_seconds'][form]['median']:.2f}" for form in FORMS]
        memory = [f"{row['load_memory'][form]['anonymous'] / 1e6:.0f}" for form in FORMS]
        view.add_row(row["run"], *text, *seconds, *memory)
    return view


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("perf/results/export_sizes.json"))
    options, rows = parser.parse_args(), []
    for run in options.runs:
        with tempfile.TemporaryDirectory() as scratch:
            rows.append(measure(run, Path(scratch), options.repeats))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, {"rows": rows, **environment()})
    Console(width=140).print(table(rows))


if __name__ == "__main__":
    main()
