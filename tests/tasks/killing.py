"""Runs `tamp` in child processes and kills them; a program of its own, so that nothing is imported twice.

Reads one JSON object a line, `{"arguments": [...], "kill": KILL}`. KILL is null, `{"seconds": 1.5}`, `{"fill": folder,
"files": n}` (no room is left on that disk once n files have their names), or a number n: the child dies when a file is
about to get its final name (n odd) or has just got it (n even), counted over all files.
Answers with the child's exit code, or minus the signal, what it wrote and how long it took.

With `"processes": n` there are n children, as torchrun starts them, and KILL may also be `{"rank": r, "rename": n}`,
`{"rank": r, "after": name}` (of a file that has just got its final name) or
`{"rank": r, "collective": n}`: that child dies when the n-th collective of torch.distributed is called, and
`{"seconds": s}` kills all of them. `code` and `output` are lists then.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning  # noqa: F401
import torch
import torch.distributed as dist
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


def kill_after(name: str) -> None:
    replace = Path.replace

    def patched(self: Path, target: Path) -> Path:
        result = replace(self, target)
        if Path(target).name == name:
            die()
        return result

    Path.replace = patched


def kill_at_collective(number: int) -> None:
    count = 0

    def counting(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                die()
            return call(*args, **kwargs)

        return counted

    for name in ("all_gather_object", "broadcast_object_list", "broadcast", "all_reduce", "send", "recv"):
        setattr(dist, name, counting(getattr(dist, name)))


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


def join(order: dict, rank: int, port: int) -> None:
    """Be one of several."""
    world = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": order["processes"], "MASTER_PORT": port}
    os.environ |= {**{name: str(value) for name, value in world.items()}, "MASTER_ADDR": "127.0.0.1"}
    kill = order["kill"] or {}
    if kill.get("rank") != rank:
        return
    if "rename" in kill:
        kill_at_rename(kill["rename"])
    elif "after" in kill:
        kill_after(kill["after"])
    else:
        kill_at_collective(kill["collective"])


def child(order: dict, log: Path, rank: int = 0, port: int = 0) -> None:
    with log.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        if "processes" in order:
            join(order, rank, port)
        elif isinstance(order["kill"], int):
            kill_at_rename(order["kill"])
        elif "fill" in (order["kill"] if isinstance(order["kill"], dict) else {}):
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


def serve_several(order: dict) -> dict:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start, children = time.perf_counter(), {}
    logs = [Path(tempfile.mkstemp()[1]) for _ in range(order["processes"])]
    for rank, log in enumerate(logs):
        process = os.fork()
        if process == 0:
            child(order, log, rank, port)
        children[rank] = process
    if "seconds" in (order["kill"] or {}):
        time.sleep(order["kill"]["seconds"])
        for process in children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in children.values()]
    texts = [log.read_text() for log in logs]
    for log in logs:
        log.unlink()
    return {"code": codes, "output": texts, "seconds": time.perf_counter() - start}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(serve_several(order) if "processes" in order else serve(order)), flush=True)
