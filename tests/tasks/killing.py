"""Runs `tamp` in child processes and kills them; a program of its own, so that nothing is imported twice.

Reads one JSON object a line, `{"arguments": [...], "kill": KILL}`. KILL is null, `{"seconds": 1.5}`, `{"fill": folder,
"files": n}` (no room is left on that disk once n files have their names), or a number n: the child dies when a file is
about to get its final name (n odd) or has just got it (n even), counted over all files.
Answers with the child's exit code, or minus the signal, what it wrote and how long it took.
"""

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import lightning  # noqa: F401
import torch
import transformers  # noqa: F401

from tamp_lightning.cli.main import main
from tamp_lightning.tasks import prune  # noqa: F401


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_rename(number: int) -> None:
    count, replace = 0, Path.replace

    def patched(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == number:
            die()
        result = replace(self, target)
        count += 1
        if count == number:
            die()
        return result

    Path.replace = patched


def fill_disk(folder: Path, files: int) -> None:
    """Leave no room once so many files have got their names."""
    left, replace = files, Path.replace

    def patched(self: Path, target: Path) -> Path:
        nonlocal left
        result = replace(self, target)
        left -= 1
        if left == 0:
            status = os.statvfs(folder)
            (folder / "filler").write_bytes(bytes(status.f_bavail * status.f_frsize))
        return result

    Path.replace = patched


def child(order: dict, log: Path) -> None:
    with log.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        if isinstance(order["kill"], int):
            kill_at_rename(order["kill"])
        if "fill" in (order["kill"] if isinstance(order["kill"], dict) else {}):
            fill_disk(Path(order["kill"]["fill"]), order["kill"]["files"])
        code = 0
        try:
            main(order["arguments"])
        except SystemExit as exit_:
            code = exit_.code or 0
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 1
        file.flush()
        os._exit(code)


def serve(order: dict) -> dict:
    log = Path(tempfile.mkstemp()[1])
    start, process = time.perf_counter(), os.fork()
    if process == 0:
        child(order, log)
    if isinstance(order["kill"], dict) and "seconds" in order["kill"]:
        time.sleep(order["kill"]["seconds"])
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    text = log.read_text()
    log.unlink()
    return {"code": os.waitstatus_to_exitcode(status), "output": text, "seconds": time.perf_counter() - start}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)
