"""Files that stand under their names only when they are complete and on the disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tamp_lightning.errors import InputError

CHUNK = 8 << 20


@contextmanager
def atomic_write(final: Path, scratch: Path | None = None) -> Iterator[Path]:
    """Write to the scratch file inside; afterwards that file is `final`, complete and on the disk.

    Args:
        final: name of the complete file; an older one is replaced.
        scratch: where it is written, in the same file system; never left behind, except by a killed process.
            Default: a hidden file beside it, of this process alone.

    Raises:
        OSError: the file cannot be written (no room, no permission); one line that names it.
    """
    scratch = scratch or final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        for path in (final, scratch):
            path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        sync(scratch)
        scratch.replace(final)
        sync(final.parent)
    except (OSError, SafetensorError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise OSError(f"cannot write {final}: {why}; what is finished stays, and the same command continues") from None
    finally:
        if scratch.parent.is_dir():
            scratch.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A text in UTF-8, line ends as they are; see `atomic_write`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """A small file in one piece; see `atomic_write`."""
    with atomic_write(path) as scratch:
        scratch.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """JSON values; NaN and infinity, which are none, are refused. See `atomic_write`.

    Raises:
        InputError: there is one, and nothing is written.
    """
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: Path) -> str:
    """Checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_range(path: Path, start: int, end: int) -> Iterator[bytes]:
    """Bytes [start, end) of a file.

    Raises:
        InputError: the file became shorter.
    """
    with path.open("rb") as file:
        file.seek(start)
        while start < end:
            chunk = file.read(min(CHUNK, end - start))
            if not chunk:
                raise InputError(f"{path} became shorter while it was read")
            start += len(chunk)
            yield chunk
