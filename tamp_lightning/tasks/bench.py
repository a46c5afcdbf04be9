"""`tamp bench`: a pruned checkpoint dense and with compressed linears, side by side: prefill, decode and memory."""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from tamp_lightning.checkpoint.reader import CheckpointReader
from tamp_lightning.errors import InputError
from tamp_lightning.files import write_json
from tamp_lightning.runs.environment import compute_dtype, environment
from tamp_lightning.tasks.bench_worker import COMPRESSED, DENSE, FLOAT32, TWO_OF_FOUR, serve
from tamp_lightning.testbeds.checkpoints import resolve

FORMS = (COMPRESSED, DENSE, FLOAT32, TWO_OF_FOUR)
MEASURES = ("prefill_seconds", "tokens_per_second", "memory", "peak")


def bench(arguments: Sequence[str], console: Console) -> None:
    """Do what the command line says: print a table, and write `--out` as JSON.

    Every form is a process of its own, loaded once; then they generate in turn, so that a change in the machine's
    speed meets all of them. The first generation of each is not counted.

    Raises:
        InputError, FileNotFoundError: a folder, form or number makes no sense, or nothing of the folder is sparse.
        RuntimeError: a process ended with an error, which is in the message.
    """
    given = _parser().parse_args(arguments)
    folder = _folder(Path(given.checkpoint)) if Path(given.checkpoint).is_dir() else resolve(given.checkpoint)
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    forms = _forms(given.forms, folder, device)
    for name in ("prompt", "tokens", "repeats", "threads"):
        if getattr(given, name) < 1:
            raise InputError(f"--{name} is {getattr(given, name)}, expected 1 or more")
    if given.out is not None and not Path(given.out).absolute().parent.is_dir():
        raise InputError(f"--out: there is no folder {Path(given.out).absolute().parent}")
    results = _measure(folder, forms, device, given)
    console.print(table(results))
    if given.out is not None:
        asked = {name: getattr(given, name) for name in ("prompt", "tokens", "repeats", "threads")}
        write_json(Path(given.out), {"forms": results, **asked, "machine": environment(), "run_on": device})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tamp bench", description=__doc__)
    parser.add_argument("checkpoint", help="a run folder, a checkpoint folder in either form, or a hub id")
    parser.add_argument("--forms", help=f"of {','.join(FORMS)}; default: all that make sense but 2:4")
    parser.add_argument("--device", help="default: cuda if there is one, else cpu")
    parser.add_argument("--prompt", type=int, default=64, help="tokens read before the first new one (default 64)")
    parser.add_argument("--tokens", type=int, default=32, help="tokens generated after the first (default 32)")
    parser.add_argument("--repeats", type=int, default=5, help="counted generations of each form (default 5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU (default torch's)")
    parser.add_argument("--out", metavar="FILE", help="write everything measured there, as JSON")
    return parser


def _folder(path: Path) -> Path:
    return path / "model" if (path / "model").is_dir() and not (path / "config.json").exists() else path


def _forms(asked: str | None, folder: Path, device: str) -> list[str]:
    """Those asked for; else all, float32 only where a CPU computes it faster than the checkpoint's own dtype."""
    if asked is not None:
        forms = asked.split(",")
        if wrong := [form for form in forms if form not in FORMS]:
            raise InputError(f"--forms has {wrong[0]!r}, expected some of {', '.join(FORMS)}")
        if TWO_OF_FOUR in forms and not device.startswith("cuda"):
            raise InputError(f"--forms has {TWO_OF_FOUR}, which needs --device cuda")
        return forms
    dtypes = {info.dtype for shard in CheckpointReader(folder).shards.values() for info in shard.tensors.values()}
    slow = compute_dtype("auto", torch.device(device)) is torch.float32 and bool(dtypes & {"BF16", "F16"})
    return [COMPRESSED, DENSE, *([FLOAT32] if slow else [])]


@dataclass
class _Worker:
    """A process that holds one form."""

    process: SpawnProcess
    pipe: Connection

    def ask(self, message: bool | None = True) -> dict[str, Any]:
        """What it answers to a message, or to none.

        Raises:
            RuntimeError: it failed.
        """
        try:
            if message is not None:
                self.pipe.send(message)
            fine, answer = self.pipe.recv()
        except (EOFError, BrokenPipeError):
            self.process.join()
            raise RuntimeError(f"a process of tamp bench ended with code {self.process.exitcode}") from None
        if not fine:
            raise RuntimeError(f"a process of tamp bench failed:\n{answer}")
        return answer

    def end(self) -> None:
        """Let it end, or end it if it does not within ten seconds."""
        with suppress(OSError):
            self.pipe.send(None)
        self.process.join(10)
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def _measure(folder: Path, forms: Sequence[str], device: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    workers: dict[str, _Worker] = {}
    facts: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        for form in forms:
            ours, theirs = context.Pipe()
            arguments = (theirs, str(folder), form, device, given.threads, given.prompt, given.tokens)
            process = context.Process(target=serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            workers[form] = _Worker(process, ours)
            stack.callback(workers[form].end)
            facts[form] = workers[form].ask(None)
            if form == COMPRESSED and not facts[form]["linears"]:
                raise InputError(f"{folder} has no linear that is sparse enough to be compressed")
        for worker in workers.values():
            worker.ask()
        rounds = [{form: worker.ask() for form, worker in workers.items()} for _ in range(given.repeats)]
    return [
        {"form": form, **facts[form], **{name: _spread([r[form][name] for r in rounds]) for name in MEASURES}}
        for form in forms
    ]


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "all": list(values)}


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
