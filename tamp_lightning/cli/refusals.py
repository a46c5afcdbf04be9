"""How the program ends when something is wrong: one line for what the user can put right, a traceback for a bug."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from tamp_lightning.cli.tested import untested
from tamp_lightning.errors import InputError

PROCESSES = "tamp_lightning.distributed.processes"
"""Not imported here, for it is Lightning that takes seconds."""


def is_refusal(error: Exception) -> bool:
    """Whether an error says what the user can put right; any other is a bug and keeps its traceback.

    Refusals are InputErrors, what the operating system refuses (no file, no space, no permission), and trainer
    settings that Lightning calls impossible.
    """
    return isinstance(error, InputError | OSError) or type(error).__name__ == "MisconfigurationException"


@contextmanager
def refusals_in_one_line() -> Iterator[None]:
    """End the program with one line and exit code 2 on bad input; any other error keeps its traceback.

    Of several processes only the first to fail speaks.
    """
    try:
        yield
    except Exception as error:
        if not _speaks():
            sys.exit(2 if is_refusal(error) else 1)
        _say_untested()
        if not is_refusal(error):
            raise
        line = escape(" ".join(str(error).split()))
        Console(stderr=True).print(f"[bold red]error[/bold red]: {line}", soft_wrap=True, highlight=False)
        sys.exit(2)


def _say_untested() -> None:
    """A run that fails with libraries that were not tested says so before anything else."""
    if strange := untested():
        note(f"not tested with {', '.join(strange)}; `make setup` in a checkout installs what was")


def note(line: str) -> None:
    """Print a line on stderr; of several processes only one speaks."""
    if _speaks():
        Console(stderr=True).print(f"[bold yellow]note[/bold yellow]: {escape(line)}", soft_wrap=True, highlight=False)


@contextmanager
def all_processes() -> Iterator[None]:
    """End all processes when this one fails; before Lightning is there, there is but one."""
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        if isinstance(code, int) and code and PROCESSES in sys.modules:
            sys.modules[PROCESSES].end_others(code)
        raise


def _speaks() -> bool:
    return PROCESSES not in sys.modules or sys.modules[PROCESSES].speaks()
