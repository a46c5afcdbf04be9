"""Builds the CPU kernel on demand, once per machine and version of its source, or says why that is impossible."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tamp_lightning.resources import cache_folder

SWITCH = "TAMP_CPU_KERNEL"
"""Set to 0, this variable keeps the kernel from being built or used."""
_SOURCES = Path(__file__).parent / "csrc"
_C: dict[str, Any] = {"i": ctypes.c_int, "n": ctypes.c_int64, "p": ctypes.c_void_p}
_MATRIX: list[Any] = [_C[kind] for kind in "iipnppnpn"]
"""Set, type, values, their number, mask, starts and their stride, scales and theirs."""
_FLAGS = ["-O3", "-std=c++17", "-fopenmp"]


@cache
def cpu_library() -> ctypes.CDLL | None:
    """The kernel, or None after one warning that says what is missing; then torch does its work, slower."""
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        return load(cache_folder() / "kernels")
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        reason = " ".join(str(error).split())[:300]
        warnings.warn(
            f"the CPU kernel for compressed linears was not built ({reason}): plain torch computes them, which is right"
            f" but slow; install a C++ compiler and ninja, or set {SWITCH}=0 to be spared this line",
            stacklevel=2,
        )
        return None


def load(folder: Path) -> ctypes.CDLL:
    """The kernel from `folder`, compiled if it is not there yet.

    Raises:
        OSError: a folder cannot be written, or the library not loaded.
        RuntimeError, SubprocessError: there is no compiler or no ninja, or compiling failed.
    """
    digest = hashlib.sha256("".join([*_FLAGS, torch.__version__]).encode())
    for path in sorted(_SOURCES.iterdir()):
        digest.update(path.read_bytes())
    path = folder / f"bitmask-{digest.hexdigest()[:16]}.so"
    if not path.is_file():
        _compile(path)
    # OpenMP's symbols are left open on linking: they are those of the runtime that torch has loaded
    library = ctypes.CDLL(str(path))
    library.tamp_best_set.restype = ctypes.c_int
    library.tamp_multiply.restype = library.tamp_expand.restype = None
    # told once, so that numbers are not made into objects at every call
    library.tamp_multiply.argtypes = [*_MATRIX, *(_C[kind] for kind in "nnpnppi")]
    library.tamp_expand.argtypes = [*_MATRIX, *(_C[kind] for kind in "nnnipi")]
    return library


@contextmanager
def _own_programs() -> Iterator[None]:
    """Let ninja be found where it is installed beside this Python, whose environment need not be activated."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([before, str(Path(sys.executable).parent)])
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _compile(path: Path) -> None:
    from torch.utils import cpp_extension

    if shutil.which(cpp_extension.get_cxx_compiler()) is None:
        raise RuntimeError(f"there is no C++ compiler {cpp_extension.get_cxx_compiler()!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    # in a folder of its own: two processes may compile at a time, and one that is killed leaves no lock
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch, _own_programs():
        cpp_extension.load(
            name="bitmask",
            sources=[str(_SOURCES / "bitmask.cpp")],
            extra_cflags=_FLAGS,
            build_directory=scratch,
            is_python_module=False,
        )
        next(Path(scratch).glob("*.so")).replace(path)  # torch numbers the names of what a process builds again
