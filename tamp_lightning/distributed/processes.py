"""Several processes: what they can do, and that one which fails ends all, with one complaint."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta

import lightning as L
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed import DistError, DistNetworkError, TCPStore

from tamp_lightning.distributed.partition import BatchPartition
from tamp_lightning.errors import InputError
from tamp_lightning.methods.method import Method

# a store of torchrun outlives the processes that it starts again
_ATTEMPT = f"tamp/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
ENDED, SPEAKERS, GONE, LEFT = (f"{_ATTEMPT}/{name}" for name in ("ended", "speakers", "gone", "left"))
"""Keys of the store that torch.distributed has for its processes: the exit code, who complains, how many have ended,
and whether the one that failed has no more to ask."""
LOOK_EVERY = 0.2
WAIT_FOR_OTHERS = 5.0
OUTLIVE_FIRST = 30.0
"""Seconds."""


def check_strategy(trainer: L.Trainer) -> None:
    """Refuse strategies under which processes would not each have what this package needs.

    Raises:
        InputError: several processes, and not Lightning's ddp with a program of its own in each.
    """
    strategy = trainer.strategy
    start = getattr(strategy, "_start_method", None)
    if trainer.world_size > 1 and not (type(strategy) is DDPStrategy and start == "popen"):
        name = f"{type(strategy).__name__} by {start}" if start else type(strategy).__name__
        raise InputError(f"trainer.strategy is {name}: several processes need ddp, which starts programs of their own")


def check_processes(trainer: L.Trainer, method: Method, batches: int) -> None:
    """Refuse what several processes cannot do.

    Raises:
        InputError: naming the reason and the remedy.
    """
    check_strategy(trainer)
    processes = trainer.world_size
    if processes > (most := BatchPartition(batches).leaves):
        raise InputError(
            f"trainer asks for {processes} processes, and {batches} calibration batches can be shared by {most}: "
            "lower calibration.batch_size or devices"
        )


_store: TCPStore | None = None
_processes = 1
_failed = False
_over = threading.Event()
"""Set when Python ends."""


class EndTogether(L.Callback):
    """Ends this process as soon as another has failed, wherever it waits for it."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Start to watch, once per process."""
        global _store, _processes
        if trainer.world_size > 1 and _store is None:
            _store = _connected()
            _processes = trainer.world_size
            watch = threading.Thread(target=_watch, args=(_store, trainer.is_global_zero), daemon=True)
            watch.start()
            atexit.register(_end_watch, watch)


def _end_watch(watch: threading.Thread) -> None:
    """A thread that is in the store when Python ends would abort the process."""
    _over.set()
    watch.join(WAIT_FOR_OTHERS)


def _connected(seconds: float = 30) -> TCPStore:
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(host, port, is_master=False, timeout=timedelta(seconds=seconds))


def _connected_again() -> TCPStore | None:
    """The store after a connection was lost: on a busy machine it may only have been slow."""
    deadline = time.monotonic() + OUTLIVE_FIRST
    while time.monotonic() < deadline and not _over.wait(LOOK_EVERY):
        with suppress(DistError):
            return _connected(OUTLIVE_FIRST / 3)
    return None


def _watch(store: TCPStore, serves: bool) -> None:
    while not _failed and not _over.wait(LOOK_EVERY):
        try:
            if not _failed and store.check([ENDED]):
                code = int(store.get(ENDED))
                store.add(GONE, 1)
                deadline = time.monotonic() + WAIT_FOR_OTHERS
                # the store ends with the first process
                while serves and not store.check([LEFT]) and time.monotonic() < deadline:
                    time.sleep(LOOK_EVERY)
                sys.stderr.flush()
                # nothing else gets out of a collective that waits for a process that is no more
                os._exit(code)
        except DistError:
            again = None if _failed else _connected_again()
            if _failed or _over.is_set():
                return
            if again is None:  # the first process has ended, and none has anything left to do for long
                os._exit(1)
            store = again


def speaks() -> bool:
    """Whether this process is the one whose error is shown: the first to fail. To be called when it has failed."""
    global _failed
    _failed = True
    if _store is None:
        return True
    try:
        return _store.add(SPEAKERS, 1) == 1
    except DistNetworkError:
        return False


def end_others(code: int) -> None:
    """Make all other processes exit with `code`; return when they have, or after some seconds."""
    global _failed
    _failed = True
    if _store is None:
        return
    try:
        _store.set(ENDED, str(code))
        gone, deadline = _store.add(GONE, 1), time.monotonic() + WAIT_FOR_OTHERS
        while gone < _processes and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY)
            gone = _store.add(GONE, 0)
        _store.set(LEFT, "")
    except DistNetworkError:
        return
