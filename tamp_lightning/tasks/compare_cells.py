"""The cells of a comparison: one method at one sparsity on one draw each, and which of them are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tamp_lightning.config.aliases import completed, modern
from tamp_lightning.config.recipe import CompareRecipe, PruneRecipe, ScoreChoice
from tamp_lightning.errors import InputError
from tamp_lightning.runs.folder import RunFolder


@dataclass(frozen=True)
class Cell:
    """One method at one sparsity on one draw of calibration samples, from `source` if not the comparison's own."""

    method: str
    sparsity: float
    seed: int
    source: str | None
    recipe: PruneRecipe

    @property
    def name(self) -> str:
        """Name of its run folder."""
        name = f"{self.method}-{100 * self.sparsity:g}-{self.seed}"
        return f"{name}-{self.source}" if self.source else name

    @property
    def folder(self) -> RunFolder:
        """Its run folder."""
        return RunFolder(Path(str(self.recipe.out)))

    @property
    def text(self) -> str:
        """Content of its recipe.yaml; without `out`, so that a comparison may be moved."""
        return yaml.safe_dump(asdict(replace(self.recipe, out=None)), sort_keys=False)


def grid_cells(recipe: CompareRecipe, out: Path) -> list[Cell]:
    """The cells of all grids, each once: in a grid the first seed of everything first, then the sparsities in order.

    Raises:
        InputError: a cell's method is impossible at its sparsity.
    """
    return list({cell.name: cell for cell in _cells(recipe, out)}.values())


def _cells(recipe: CompareRecipe, out: Path) -> Iterator[Cell]:
    for grid in recipe.grids:
        dtype = recipe.model.dtype if grid.dtype == "auto" else grid.dtype
        source = None if grid.source == recipe.calibration.source else grid.source
        drawn = replace(recipe.calibration, source=grid.source or recipe.calibration.source)
        for seed in grid.seeds:
            for sparsity in grid.sparsities:
                for name in grid.methods:
                    prune = PruneRecipe(
                        model=replace(recipe.model, dtype=dtype),
                        method=replace(recipe.methods[name], sparsity=sparsity),
                        calibration=replace(drawn, seed=seed),
                        scores=recipe.scores,
                        seed=recipe.seed,
                        plugins=recipe.plugins,
                        trainer=recipe.trainer,
                    )
                    cell = Cell(name, sparsity, seed, source, prune)
                    yield replace(cell, recipe=replace(prune, out=str(out / "cells" / cell.name)))


def unpaired(cells: Sequence[Cell], reference: str) -> list[str]:
    """What of a comparison has no cell of the reference to be paired with: a line for each source and sparsity."""
    known = {(cell.sparsity, cell.source) for cell in cells if cell.method == reference}
    missing = dict.fromkeys((cell.sparsity, cell.source) for cell in cells if (cell.sparsity, cell.source) not in known)
    return [
        f"no {reference} at {100 * sparsity:g} %{f' with source: {source}' if source else ''}: the methods there are "
        f"not paired with it; name it in that grid's methods"
        for sparsity, source in missing
    ]


def is_done(cell: Cell) -> bool:
    """Whether the cell's run folder is finished, whatever trainer ran it: on a GPU, say, or without progress bars.

    Raises:
        InputError: it was made by another recipe.
    """
    folder = cell.folder
    if not folder.is_finished:
        return False
    found = folder.recipe.read_text()
    if found != cell.text and _without_trainer(found) != _without_trainer(cell.text):
        raise InputError(f"{folder.path} was made by another recipe: remove it, or name another folder with --out")
    return True


def _without_trainer(text: str) -> dict[str, Any]:
    """A recipe without its trainer; what an older version did not write is as by default."""
    content = modern(yaml.safe_load(text), [])
    scores = asdict(ScoreChoice()) | content.get("scores", {})
    return (
        {"plugins": []} | content | {"trainer": None, "scores": scores, "method": completed(content.get("method", {}))}
    )
