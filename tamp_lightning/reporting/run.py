"""A run folder, read again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tamp_lightning.errors import InputError
from tamp_lightning.reporting.plan import Plan
from tamp_lightning.reporting.scores import Scored
from tamp_lightning.reporting.wording import method_name

FILES = ("run.json", "plan.json", "recipe.yaml")
DAMAGE = (json.JSONDecodeError, UnicodeDecodeError, yaml.YAMLError, pa.ArrowInvalid, KeyError, TypeError)
COLUMNS = {"benchmark", "id", "picture", "question", "answer", "dense", "pruned", "kl", "dense_score", "pruned_score"}


@dataclass(frozen=True)
class Run:
    """What a finished prune run left behind."""

    folder: Path
    run: dict[str, Any]
    """Content of run.json."""
    recipe: dict[str, Any]
    """Content of recipe.yaml."""
    plan: Plan
    metrics: dict[str, Any] | None
    """Content of metrics.json; None if the run scored nothing."""
    rows: list[dict[str, Any]]
    """Of predictions.parquet; empty if the run scored nothing."""
    examples: dict[str, Any]
    """Content of examples.json."""

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read a run folder.

        Raises:
            InputError: it is none, or a file of it is damaged.
        """
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise InputError(f"{folder} is no folder of a finished prune run: it has no {missing[0]}")
        try:
            run, plan = (json.loads((folder / name).read_text()) for name in FILES[:2])
            recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
            held = {name: _json(folder / f"{name}.json") for name in ("metrics", "examples")}
            rows = _rows(folder / "predictions.parquet")
            examples = held["examples"] or {"calibration_tokens": {}, "samples": [], "pictures": {}}
            return cls(folder, run, recipe, Plan(plan["linears"]), held["metrics"], rows, examples)
        except DAMAGE as error:
            raise InputError(f"{folder} cannot be read as a run folder: {' '.join(str(error).split())}") from None

    @cached_property
    def scored(self) -> Scored | None:
        """Scores with their intervals; None if the run scored nothing."""
        return Scored(self.metrics, self.rows) if self.metrics and self.rows else None

    @property
    def name(self) -> str:
        """What the run is called among others."""
        return f"{method_name(self.recipe['method'])} {100 * self.run['sparsity']:.0f} %"

    @property
    def model(self) -> str:
        """Name of the model that was pruned."""
        return str(self.recipe["model"]["checkpoint"]).rstrip("/").rpartition("/")[2]


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Run folders: those given, and those below a given folder that is none itself, in order.

    Raises:
        InputError: a path is no folder, or there is no run in it.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise InputError(f"{path} is no folder: name folders that `tamp run` left")
        own = [path] if (path / "run.json").is_file() else sorted(p.parent for p in path.rglob("run.json"))
        if not own:
            raise InputError(f"{path} holds no finished prune run: there is no run.json in it or below it")
        found |= dict.fromkeys(own)
    return list(found)


def _json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    table = pq.read_table(path)
    if missing := sorted(COLUMNS - set(table.column_names)):
        raise KeyError(f"predictions.parquet has no column {missing[0]}: the run was made by an older version")
    return table.to_pylist()
