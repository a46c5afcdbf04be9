"""The folder that an export writes: under its name only when complete, and taken up again where it was left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tamp_lightning.checkpoint.writer import refuse_existing
from tamp_lightning.errors import InputError
from tamp_lightning.files import sha256_of, sync, write_bytes, write_json

STATE = "export.json"


class Target:
    """A folder in the making, `OUT.partial`, with `export.json` that says what is finished.

    Args:
        out: name of the finished folder.
        job: what is exported and how; a folder in the making is taken up only by the same job.

    Attributes:
        files: sha256 of every finished file.
        facts: what was noted about each.

    Raises:
        InputError: `out` has content, or `OUT.partial` is not of this job.
    """

    def __init__(self, out: Path, job: dict[str, Any]) -> None:
        refuse_existing(out)
        self.out, self.job = out, job
        self.partial = out.with_name(f"{out.name}.partial")
        self.files: dict[str, str] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        if self.partial.exists():
            self._resume()

    def path(self, name: str) -> Path:
        """Where a file is written."""
        return self.partial / name

    def note(self, name: str, **facts: Any) -> None:
        """Say that a file is finished; `facts` are to be had again after a resume."""
        self.files[name] = sha256_of(self.path(name))
        self.facts[name] = facts
        self._save()

    def write(self, name: str, content: bytes) -> None:
        """Write a small file and note it."""
        write_bytes(self.path(name), content)
        self.files[name] = sha256_of(self.path(name))

    def publish(self) -> None:
        """Give the folder its name."""
        self.path(STATE).unlink()
        if self.out.is_dir():
            self.out.rmdir()
        sync(self.partial)
        self.partial.replace(self.out)
        sync(self.out.parent)

    @contextmanager
    def nothing_left_behind(self) -> Iterator[None]:
        """Remove the folder in the making if what was asked for turns out to be impossible."""
        self._save()
        try:
            yield
        except InputError:
            shutil.rmtree(self.partial)
            raise

    def _save(self) -> None:
        content = {"job": self.job, "files": self.files, "facts": self.facts}
        write_json(self.path(STATE), content)

    def _resume(self) -> None:
        remedy = "remove it or name another folder"
        try:
            state = json.loads(self.path(STATE).read_text())
            job, files, facts = state["job"], state["files"], state["facts"]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{self.partial} is in the way and not of an export: {remedy}") from None
        for key, value in self.job.items():
            if job.get(key) != value:
                raise InputError(f"{self.partial} is of another export ({key} differs): {remedy}")
        for name, digest in files.items():
            if self.path(name).is_file() and sha256_of(self.path(name)) == digest:
                self.files[name], self.facts[name] = digest, facts[name]
        for path in self.partial.iterdir():  # what a kill has left unfinished
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in (*self.files, STATE):
                path.unlink()
