"""`tamp bench`: a pruned checkpoint dense and with compressed linears, side by side: prefill, decode and memory."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from tamp_lightning.checkpoint.reader import CheckpointReader
from tamp_lightning.errors import InputError
from tamp_lightning.files import write_json
from tamp_lightning.runs.environment import compute_dtype, environment
from tamp_lightning.tasks.bench_processes import Load, measure
from tamp_lightning.tasks.bench_table import table
from tamp_lightning.tasks.bench_worker import COMPRESSED, DENSE, FLOAT32, TWO_OF_FOUR
from tamp_lightning.testbeds.checkpoints import resolve

FORMS = (COMPRESSED, DENSE, FLOAT32, TWO_OF_FOUR)


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
    load = Load(given.prompt, given.tokens, given.repeats, given.threads)
    if given.out is not None and not Path(given.out).absolute().parent.is_dir():
        raise InputError(f"--out: there is no folder {Path(given.out).absolute().parent}")
    results = measure(folder, forms, device, load)
    console.print(table(results))
    if given.out is not None:
        write_json(Path(given.out), {"forms": results, **asdict(load), "machine": environment(), "run_on": device})


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
