"""A run folder, read again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tamp_lightning.errors import InputError
from tamp_lightning.reporting.plan import PlanView
from tamp_lightning.reporting.scores import Scored
from tamp_lightning.reporting.wording import method_name
from tamp_lightning.runs.folder import RunFolder

DAMAGE = (UnicodeDecodeError, yaml.YAMLError, pa.ArrowInvalid, KeyError, TypeError)
COLUMNS = {"benchmark", "id", "picture", "question", "answer", "dense", "pruned", "kl", "dense_score", "pruned_score"}


@dataclass(frozen=True)
class Run:
    """What a finished prune run left behind."""

    folder: Path
    run: dict[str, Any]
    """Content of run.json."""
    recipe: dict[str, Any]
    """Content of recipe.yaml."""
    plan: PlanView
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
        held = RunFolder(folder)
        if missing := held.missing():
            raise InputError(f"{folder} is no folder of a finished prune run: it has no {missing[0]}")
        try:
            recipe = yaml.safe_load(held.recipe.read_text())
            metrics, examples = held.read_optional(held.metrics), held.read_optional(held.examples)
            examples = examples or {"calibration_tokens": {}, "samples": [], "pictures": {}}
            plan, rows = PlanView(held.read_plan()), _rows(held.predictions)
            return cls(folder, held.read_run(), recipe, plan, metrics, rows, examples)
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


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    table = pq.read_table(path)
    if missing := sorted(COLUMNS - set(table.column_names)):
        raise KeyError(f"predictions.parquet has no column {missing[0]}: the run was made by an older version")
    return table.to_pylist()
