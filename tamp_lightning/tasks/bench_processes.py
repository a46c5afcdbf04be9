"""Every form of a checkpoint in a process of its own, timed in turn."""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from tamp_lightning.errors import InputError
from tamp_lightning.tasks.bench_worker import COMPRESSED, serve

MEASURES = ("prefill_seconds", "tokens_per_second", "memory", "peak")


@dataclass(frozen=True)
class Load:
    """What every form does, named as on the command line."""

    prompt: int
    """Tokens read before the first new one."""
    tokens: int
    """Tokens generated after the first."""
    repeats: int
    """Counted generations; one before them is not."""
    threads: int
    """Of the CPU."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise InputError(f"--{name} is {value}, expected 1 or more")


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


def measure(folder: Path, forms: Sequence[str], device: str, load: Load) -> list[dict[str, Any]]:
    """Let every form do the same in turn, so that a change in the machine's speed meets all of them.

    Args:
        folder: of the checkpoint.
        forms: `bench_worker`'s.
        device: such as cpu.
        load: what each does.

    Returns:
        One row per form, each measure with its median, least, most and all values.

    Raises:
        InputError: nothing of the folder is sparse.
        RuntimeError: a process ended with an error, which is in the message.
    """
    context = multiprocessing.get_context("spawn")
    workers: dict[str, _Worker] = {}
    facts: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        for form in forms:
            ours, theirs = context.Pipe()
            arguments = (theirs, str(folder), form, device, load.threads, load.prompt, load.tokens)
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
        rounds = [{form: worker.ask() for form, worker in workers.items()} for _ in range(load.repeats)]
    return [
        {"form": form, **facts[form], **{name: _spread([r[form][name] for r in rounds]) for name in MEASURES}}
        for form in forms
    ]


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "all": list(values)}
