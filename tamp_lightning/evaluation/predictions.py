"""Predictions on disk: appended while a benchmark runs, so that a killed run goes on and a finished one is not redone.

A folder `<benchmark>-<key>` belongs to one set of inputs, whose hash is the key; `inputs.json` says what they were.
While running it holds `part-<rank>.jsonl`; when finished `predictions.parquet` and `scores.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tamp_lightning.benchmarks.base import Benchmark
from tamp_lightning.data.readers.item import Item, Items
from tamp_lightning.files import atomic_write, write_json

KEY_LENGTH = 12


@dataclass(frozen=True)
class Record:
    """What was said to one question."""

    position: int
    id: str
    reply: str = ""
    bad: str | None = None
    """Why it was not asked."""
    nll: tuple[float, ...] = ()
    """Scoring by likelihood: nats of each candidate, summed over its tokens."""
    lengths: tuple[int, ...] = ()
    """Tokens of each candidate."""
    cut: bool = False
    """Whether the reply ends within its reasoning."""


def digest(content: Any) -> str:
    """sha256 of a value as JSON, keys sorted."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def questions_digest(benchmark: Benchmark, items: Items) -> str:
    """sha256 over everything that is asked: ids, prompts, answers, options, and which media."""
    shown = benchmark.subtitles
    rows = [
        [i.id, benchmark.prompt(i), i.target, i.options, [m.label for m in i.media], _subtitles(i) if shown else "None"]
        for i in items.items
    ]
    return digest([items.sha256, rows])


def _subtitles(item: Item) -> str:
    path = item.subtitles
    return "None" if path is None else f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"


class Store:
    """The folder of one benchmark run.

    Args:
        folder: parent of the run's own folder.
        name: of the benchmark.
        inputs: everything that decides the predictions.
    """

    def __init__(self, folder: Path, name: str, inputs: Mapping[str, Any]) -> None:
        self.inputs = dict(inputs)
        self.folder = folder / f"{name}-{digest(self.inputs)[:KEY_LENGTH]}"

    @property
    def scores(self) -> dict[str, Any] | None:
        """Content of scores.json, None while the benchmark is not finished."""
        path = self.folder / "scores.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def start(self) -> None:
        """Make the folder, or close lines that were cut off when the last run was killed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "inputs.json", self.inputs)
        for path in self.folder.glob("part-*.jsonl"):
            if not path.read_bytes().endswith(b"\n"):
                with path.open("a") as file:
                    file.write("\n")

    def append(self, rank: int, records: Iterable[Record]) -> None:
        """Add records to the file of one process."""
        with (self.folder / f"part-{rank}.jsonl").open("a") as file:
            file.write("".join(json.dumps(asdict(record)) + "\n" for record in records))

    def records(self) -> dict[int, Record]:
        """All records of an unfinished run, by position; a line that is cut off is left out."""
        found: dict[int, Record] = {}
        for path in sorted(self.folder.glob("part-*.jsonl")):
            for line in path.read_text(encoding="utf-8").split("\n"):
                record = _record(line)
                if record is not None:
                    found[record.position] = record
        return found

    def finish(self, benchmark: Benchmark, items: Items, values: Sequence[float], scores: Mapping[str, Any]) -> None:
        """Write predictions.parquet and scores.json, and remove the parts."""
        records = self.records()
        rows = [_row(benchmark, items, records[n], values[n]) for n in sorted(records)]
        with atomic_write(self.folder / "predictions.parquet") as scratch:
            pq.write_table(pa.Table.from_pylist(rows), scratch)
        write_json(self.folder / "scores.json", scores)
        for path in self.folder.glob("part-*.jsonl"):
            path.unlink()


def _record(line: str) -> Record | None:
    try:
        held = json.loads(line)
    except json.JSONDecodeError:
        return None
    return Record(**{**held, "nll": tuple(held["nll"]), "lengths": tuple(held["lengths"])})


def _row(benchmark: Benchmark, items: Items, record: Record, value: float) -> dict[str, Any]:
    item = items.items[record.position]
    target = item.target
    right = [target] if isinstance(target, str) else () if target is None else target
    return {
        "position": record.position,
        "id": record.id,
        "place": items.places[record.position],
        "prompt": benchmark.prompt(item),
        "options": list(item.options),
        "right": [item.options[right]] if isinstance(right, int) else list(right),
        "reply": record.reply,
        "nll": list(record.nll),
        "score": None if value != value else value,
        "bad": record.bad,
        "cut": record.cut,
    }
