"""Answers as they are given, in memory or on disk: a killed evaluation goes on, a finished one is not redone.

A folder `<task>-<key>` belongs to one checkpoint and one set of questions, asked one way; the key is a hash of all
that, and `inputs.json` says what it was. While questions are asked it holds `part-<process>.jsonl`, afterwards
`answers.jsonl`; `log_probs-*.safetensors` are those of a dense model, for the distance to it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tamp_lightning.evaluation.predictions import digest
from tamp_lightning.evaluation.records import Record
from tamp_lightning.evaluation.task import LogProbs
from tamp_lightning.files import write_json

KEY_LENGTH = 12
CACHE_LIMIT = 4 * 10**9
"""Bytes of log-probabilities that the cache keeps; those used longest ago go first."""
FINAL, LOGS = "answers.jsonl", "log_probs-{}.safetensors"


class Answers(Protocol):
    """Records of one model on one task."""

    def append(self, rank: int, records: Iterable[Record], log_probs: Mapping[int, Tensor]) -> None:
        """Keep what process `rank` was told."""

    def gather(self) -> None:
        """Bring the records of all processes together, once each has asked its questions."""

    def records(self) -> dict[int, Record]:
        """All records by position."""

    def log_probs(self) -> LogProbs:
        """Log-probabilities that were kept, by position."""


class AnswersInMemory:
    """Answers that nobody needs later."""

    def __init__(self) -> None:
        self._records: dict[int, Record] = {}
        self._log_probs: dict[int, Tensor] = {}

    def append(self, rank: int, records: Iterable[Record], log_probs: Mapping[int, Tensor]) -> None:
        """Keep what this process was told; log-probabilities stay with it."""
        self._records |= {record.position: record for record in records}
        self._log_probs |= {position: rows.cpu() for position, rows in log_probs.items()}

    def gather(self) -> None:
        """Exchange records with the other processes."""
        if dist.is_available() and dist.is_initialized():
            held: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(held, self._records)
            for records in held:
                self._records |= records

    def records(self) -> dict[int, Record]:
        """All records by position."""
        return dict(sorted(self._records.items()))

    def log_probs(self) -> LogProbs:
        """Log-probabilities that were kept, by position."""
        return self._log_probs


class Store:
    """Answers in a folder.

    Args:
        parent: of the answers' own folder.
        name: of the task.
        inputs: everything that decides the answers.
    """

    def __init__(self, parent: Path, name: str, inputs: Mapping[str, Any]) -> None:
        self.inputs = dict(inputs)
        self.folder = parent / f"{name}-{digest(self.inputs)[:KEY_LENGTH]}"

    @property
    def finished(self) -> bool:
        """Whether every question has been asked."""
        return (self.folder / FINAL).is_file()

    def start(self) -> None:
        """Make the folder, or close lines that were cut off when the last run was killed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "inputs.json", self.inputs)
        for path in self.folder.glob("part-*.jsonl"):
            if not path.read_bytes().endswith(b"\n"):
                with path.open("a", encoding="utf-8") as file:
                    file.write("\n")

    def append(self, rank: int, records: Iterable[Record], log_probs: Mapping[int, Tensor]) -> None:
        """Add to the files of one process."""
        if log_probs:
            rows = {str(position): value.detach().cpu().contiguous() for position, value in log_probs.items()}
            path = self.folder / LOGS.format(min(log_probs))
            scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            save_file(rows, scratch)
            scratch.replace(path)
        with (self.folder / f"part-{rank}.jsonl").open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(asdict(record)) + "\n" for record in records))

    def gather(self) -> None:
        """Nothing: all processes write to the same folder."""

    def records(self) -> dict[int, Record]:
        """All records by position; a line that is cut off is left out."""
        found: dict[int, Record] = {}
        for path in [self.folder / FINAL] if self.finished else sorted(self.folder.glob("part-*.jsonl")):
            found |= {
                r.position: r for r in map(_record, path.read_text(encoding="utf-8").split("\n")) if r is not None
            }
        return dict(sorted(found.items()))

    def log_probs(self) -> LogProbs:
        """Those that were kept, read when they are asked for."""
        return StoredLogProbs(self.folder)

    def finish(self, seconds: float) -> None:
        """Turn the parts into one file; how long asking took is kept beside it."""
        records = self.records()
        write_json(self.folder / "seconds.json", seconds)
        scratch = self.folder / f".{FINAL}.{os.getpid()}.tmp"
        scratch.write_text("".join(json.dumps(asdict(record)) + "\n" for record in records.values()))
        scratch.replace(self.folder / FINAL)
        for path in self.folder.glob("part-*.jsonl"):
            path.unlink()

    def touch(self) -> None:
        """Note that the answers were used."""
        os.utime(self.folder)

    @property
    def seconds(self) -> float:
        """How long asking took."""
        path = self.folder / "seconds.json"
        return float(json.loads(path.read_text())) if path.is_file() else 0.0


class StoredLogProbs(Mapping[int, Tensor]):
    """Log-probabilities in the files of a folder, by position."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _files(self) -> dict[int, Path]:
        found: dict[int, Path] = {}
        for path in sorted(self.folder.glob(LOGS.format("*"))):
            with safe_open(path, "pt") as file:
                found |= dict.fromkeys(map(int, file.keys()), path)
        return found

    def __getitem__(self, position: int) -> Tensor:
        with safe_open(self._files[position], "pt") as file:
            return torch.clone(file.get_tensor(str(position)))

    def __iter__(self) -> Iterator[int]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def trim(cache: Path, spare: Iterable[Path], limit: int = CACHE_LIMIT) -> None:
    """Remove the answers used longest ago until log-probabilities take at most `limit` bytes.

    Args:
        cache: folder of checkpoints' folders of answers.
        spare: folders in use.
        limit: bytes.
    """
    held = {path: sum(f.stat().st_size for f in path.glob(LOGS.format("*"))) for path in cache.glob("*/*/")}
    total, kept = sum(held.values()), set(spare)
    for path in sorted(held, key=lambda path: path.stat().st_mtime):
        if total <= limit:
            return
        if path not in kept and held[path]:
            shutil.rmtree(path, ignore_errors=True)
            total -= held[path]


def _record(line: str) -> Record | None:
    try:
        held: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in held.items()}
    return Record(**fields)
