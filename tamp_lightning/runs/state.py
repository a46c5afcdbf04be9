"""What an unfinished run has found out so far, kept in its folder so that the same command can continue it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tamp_lightning.checkpoint.writer import is_taken
from tamp_lightning.config.aliases import completed, modern
from tamp_lightning.errors import InputError
from tamp_lightning.files import atomic_write, write_json

FOLDER = ".state"
_FINGERPRINT = "fingerprint.json"
_CONTENT = "content"
_SHOWN = 6
"""Differences that a refusal names before it counts the rest."""


def is_unfinished(out: Path) -> bool:
    """Whether a run folder belongs to a run that can be continued."""
    return (out / FOLDER).is_dir()


def refuse_finished(out: Path, remedy: str) -> None:
    """Refuse a folder that holds anything but an unfinished run.

    Raises:
        InputError: naming it and the remedy.
    """
    if is_taken(out) and not is_unfinished(out):
        raise InputError(f"{out} exists: nothing is overwritten, {remedy}")


class RunState:
    """Named records of an unfinished run, each a safetensors file that is complete or not there.

    The folder appears with the first record, and the fingerprint before it: a run that is refused at once leaves
    nothing behind.

    Args:
        out: the run folder.
        fingerprint: nested JSON values; everything that decides the run's bits.

    Raises:
        InputError: the folder's run was started with another fingerprint; every difference is named.
    """

    def __init__(self, out: Path, fingerprint: Mapping[str, Any]) -> None:
        self.folder, self.fingerprint = out / FOLDER, fingerprint
        path = self.folder / _FINGERPRINT
        self.resumes = path.is_file()
        """Whether there is a run to continue."""
        if self.resumes:
            _refuse_others(out, _told_as_today(json.loads(path.read_text())), json.loads(json.dumps(fingerprint)))

    def begin(self) -> None:
        """Mark the folder as that of an unfinished run, from the first file in it on."""
        path = self.folder / _FINGERPRINT
        if not path.is_file():
            write_json(path, self.fingerprint)

    def save(self, name: str, content: Any, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Keep a record; one of the same name is replaced.

        Args:
            name: file name without its ending.
            content: JSON values.
            tensors: by any name.
        """
        self.begin()
        final = self._path(name)
        with atomic_write(final, final.with_suffix(".tmp")) as scratch:
            save_file(dict(tensors or {}), scratch, metadata={_CONTENT: json.dumps(content)})

    def has(self, name: str) -> bool:
        """Whether there is a record of that name."""
        return self._path(name).is_file()

    def load(self, name: str) -> tuple[Any, dict[str, Tensor]] | None:
        """Content and tensors of a record; None if there is none.

        Raises:
            InputError: the file is damaged.
        """
        path = self._path(name)
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                names = list(file.keys())
                return json.loads(file.metadata()[_CONTENT]), {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            why = " ".join(str(error).split())
            raise InputError(f"{path} is damaged ({why}): delete it, then it is made anew") from None

    def numbered(self, name: str) -> Iterator[tuple[Any, dict[str, Tensor]]]:
        """The records `name-00000`, `name-00001`, ... up to the first that is missing."""
        index = 0
        while (record := self.load(f"{name}-{index:05d}")) is not None:
            yield record
            index += 1

    def close(self) -> None:
        """Forget everything, and what a killed process had half written: the run is finished."""
        if self.folder.is_dir():
            out = self.folder.parent
            for scrap in [*out.glob(".*.tmp"), *out.glob("*/.*.tmp")]:
                scrap.unlink(missing_ok=True)
            gone = self.folder.replace(self.folder.with_name(f"{FOLDER}.finished"))
            shutil.rmtree(gone)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


class OthersState(RunState):
    """The state of a process that leaves the notes to the first one: there is nothing in it, and nothing is kept."""

    def __init__(self, out: Path) -> None:
        self.folder, self.fingerprint, self.resumes = out / FOLDER, {}, False

    def begin(self) -> None:
        """Do nothing."""

    def save(self, name: str, content: Any, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Do nothing."""

    def has(self, name: str) -> bool:
        """Say no."""
        return False

    def load(self, name: str) -> tuple[Any, dict[str, Tensor]] | None:
        """Return None."""
        return None

    def close(self) -> None:
        """Remove the folder if hidden states of a machine without the first process's disk waited in it."""
        with suppress(OSError):
            self.folder.rmdir()


def _told_as_today(then: Mapping[str, Any]) -> dict[str, Any]:
    """What a run was started with, in today's keys, what its version did not know at its default.

    But for `polish`: where that was on, it was something else than what took its place.
    """
    settings = then.get("settings", {})
    method = dict(settings.get("method", {}))
    if not method:
        return dict(then)
    if not method.get("polish", {}).get("steps", 0):
        method.pop("polish", None)
    told = modern({**settings, "method": method}, []) if "polish" not in method else {**settings, "method": method}
    return {**then, "settings": {**told, "method": completed(told["method"])}}


def _refuse_others(out: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    first, second = dict(_flat(then)), dict(_flat(now))
    different = [
        f"{key}: {_shown(first, key)} -> {_shown(second, key)}"
        for key in dict.fromkeys([*first, *second])
        if _shown(first, key) != _shown(second, key)
    ]
    if different:
        more = f" and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
        raise InputError(
            f"{out} holds an unfinished run that this one cannot continue ({', '.join(different[:_SHOWN])}{more}): "
            "run it as it was started, choose another out, or delete the folder"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "nothing"
