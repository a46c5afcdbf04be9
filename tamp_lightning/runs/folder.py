"""The run folder: the names of its files, and what is written to them and read back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tamp_lightning.checkpoint.reader import CheckpointReader
from tamp_lightning.errors import InputError
from tamp_lightning.files import write_bytes, write_json, write_text
from tamp_lightning.runs.masks import read_masks, write_bits, write_masks
from tamp_lightning.runs.plan import SCHEMA, Plan, check_schema

RUN, PLAN, RECIPE, MASKS = "run.json", "plan.json", "recipe.yaml", "masks.safetensors"


@dataclass(frozen=True)
class RunFolder:
    """Everything needed to understand, repeat and use the result of a run."""

    path: Path

    @property
    def model(self) -> Path:
        """The checkpoint that was written."""
        return self.path / "model"

    @property
    def recipe(self) -> Path:
        """The complete recipe, overrides included."""
        return self.path / RECIPE

    @property
    def masks(self) -> Path:
        """Which weights are kept: see `runs.masks`."""
        return self.path / MASKS

    @property
    def metrics(self) -> Path:
        """Scores before and after; only there if something was scored."""
        return self.path / "metrics.json"

    @property
    def predictions(self) -> Path:
        """Every question with both answers; likewise."""
        return self.path / "predictions.parquet"

    @property
    def examples(self) -> Path:
        """Calibration samples and pictures that the report shows."""
        return self.path / "examples.json"

    @property
    def report(self) -> Path:
        """The run's page."""
        return self.path / "report.html"

    @property
    def is_finished(self) -> bool:
        """Whether a run has ended here: run.json is written last."""
        return (self.path / RUN).is_file()

    @property
    def holds_masks(self) -> bool:
        """Whether it says which weights are kept, wholly or in part."""
        return self.masks.is_file() or (self.path / PLAN).is_file()

    @property
    def holds_model(self) -> bool:
        """Whether this is a run folder with a checkpoint, rather than a checkpoint folder."""
        return self.model.is_dir() and not (self.path / "config.json").exists()

    def missing(self) -> list[str]:
        """Files that a finished prune run has and this folder has not."""
        return [name for name in (RUN, PLAN, RECIPE) if not (self.path / name).is_file()]

    def sizes(self, dense: Path) -> dict[str, Any]:
        """Numbers that the checkpoint stores, a shared one once, and bytes of its files and of the dense one's."""
        readers = {"dense": CheckpointReader(dense), "pruned": CheckpointReader(self.model)}
        tensors = [info for shard in readers["pruned"].shards.values() for info in shard.tensors.values()]
        stored = {name: sum(shard.size for shard in reader.shards.values()) for name, reader in readers.items()}
        return {"parameters": sum(math.prod(info.shape) for info in tensors), "checkpoint_bytes": stored}

    def write_plan(self, plan: Plan) -> None:
        """plan.json."""
        write_json(self.path / PLAN, plan.content)

    def write_bits(self, plan: Plan, bits: Mapping[str, Tensor]) -> None:
        """masks.safetensors from packed bits by full linear name, with the plan's shapes."""
        write_bits(self.masks, bits, {name: row["shape"] for name, row in plan.rows.items()})

    def write_masks(self, masks: Mapping[str, Tensor]) -> None:
        """plan.json and masks.safetensors from masks of which nothing more is known."""
        write_masks(self.masks, masks)
        self.write_plan(Plan.of_masks(masks))

    def copy_masks(self, other: RunFolder) -> None:
        """plan.json and masks.safetensors of another run, byte for byte."""
        for name in (MASKS, PLAN):
            write_bytes(self.path / name, (other.path / name).read_bytes())

    def write_recipe(self, text: str) -> None:
        """recipe.yaml."""
        write_text(self.recipe, text)

    def write_metrics(self, content: Mapping[str, Any] | None) -> None:
        """metrics.json; nothing for None."""
        if content is not None:
            write_json(self.metrics, content)

    def write_examples(self, content: Mapping[str, Any]) -> None:
        """examples.json."""
        write_json(self.examples, content)

    def write_run(self, content: Mapping[str, Any]) -> None:
        """run.json, the last file of a run: from now on it is finished."""
        write_json(self.path / RUN, {"schema": SCHEMA, **content})

    def read_plan(self) -> Plan:
        """plan.json.

        Raises:
            InputError: it is missing or damaged, or of a newer version.
        """
        content = _json(self.path / PLAN)
        if "linears" not in content:
            raise InputError(f"{self.path / PLAN} names no linears: is it of `tamp run`?")
        return Plan.parse(content)

    def read_masks(self) -> dict[str, Tensor]:
        """Bool masks [o, c] by full linear name, True = kept.

        Raises:
            InputError: a file is missing or damaged, or a mask is not the one that plan.json says.
        """
        return read_masks(self.masks, self.read_plan())

    def read_run(self) -> dict[str, Any]:
        """run.json.

        Raises:
            InputError: it is missing or damaged, or of a newer version.
        """
        content = _json(self.path / RUN)
        check_schema(content, RUN)
        return content

    def read_optional(self, path: Path) -> dict[str, Any] | None:
        """Content of a JSON file that not every run has; None if it is not there."""
        return _json(path) if path.is_file() else None


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path} is missing: is {path.parent} a run folder of `tamp run`?")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path.parent} cannot be read as a run folder: {path.name}: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path.parent} cannot be read as a run folder: {path.name} holds no JSON object")
    return content


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Run folders: those given, and those below a given folder that is none itself, in order.

    Raises:
        InputError: a path is no folder, or there is no run in it.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise InputError(f"{path} is no folder: name folders that `tamp run` left")
        own = [path] if RunFolder(path).is_finished else sorted(p.parent for p in path.rglob(RUN))
        if not own:
            raise InputError(f"{path} holds no finished prune run: there is no {RUN} in it or below it")
        found |= dict.fromkeys(own)
    return list(found)
