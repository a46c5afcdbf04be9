"""Any finished runs as the groups of a comparison: what each is called, and which are draws of one another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tamp_lightning.errors import InputError
from tamp_lightning.reporting.gallery import Picture
from tamp_lightning.reporting.grid import GridResult, Group
from tamp_lightning.reporting.grid_page import pictures, write_ranking
from tamp_lightning.reporting.run import Run
from tamp_lightning.reporting.scores import same_questions
from tamp_lightning.reporting.wording import method_name


def rank(runs: Sequence[Run]) -> GridResult:
    """The runs, best first, each paired with the best.

    Raises:
        InputError: a run scored nothing, or its dense model scores nothing on some benchmark.
    """
    for run in runs:
        if run.scored is None or run.scored.retention is None:
            raise InputError(f"{run.folder} has no scores to compare: prune it with --scores.benchmarks=easy_vqa")
    held = draws(runs)
    return GridResult([Group(n, own[0].run["sparsity"], own) for n, own in zip(names(held), held, strict=True)])


def draws(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in the seed of their calibration draw alone, together."""
    found: list[list[Run]] = []
    for run in runs:
        own = next((other for other in found if _another_draw(run, other)), None)
        if own is None:
            found.append([run])
        else:
            own.append(run)
    return found


def _another_draw(run: Run, others: Sequence[Run]) -> bool:
    first = others[0]
    if _seedless(run) != _seedless(first) or _seed(run) in map(_seed, others):
        return False
    return bool(run.scored and first.scored) and same_questions(run.scored, first.scored)  # type: ignore[arg-type]


def _seed(run: Run) -> Any:
    return run.recipe.get("calibration", {}).get("seed")


def _seedless(run: Run) -> dict[str, Any]:
    calibration = {**run.recipe.get("calibration", {}), "seed": None}
    return {**run.recipe, "calibration": calibration, "trainer": None, "out": None}


def names(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Published name of every group's method; where two methods, or two groups of one method and sparsity, would have
    one name, also a folder."""
    exact = [json.dumps({**own[0].recipe["method"], "sparsity": None}, sort_keys=True) for own in groups]
    plain = [method_name(own[0].recipe["method"]) for own in groups]
    share = [f"{100 * own[0].run['sparsity']:.0f}" for own in groups]
    cells = [*zip(exact, share, strict=True)]
    found = []
    for name, method, cell, own in zip(plain, exact, cells, groups, strict=True):
        alike = {other for other, theirs in zip(exact, plain, strict=True) if theirs == name}
        shown = own if cells.count(cell) > 1 else groups[exact.index(method)]
        told = cells.count(cell) > 1 or len(alike) > 1
        found.append(f"{name} ({shown[0].folder.name})" if told else name)
    return found


def write_comparison(folders: Sequence[Path], path: Path) -> Path:
    """Write a page that compares finished runs.

    Args:
        folders: run folders, such as the cells of `tamp run compare_smol`.
        path: the page.

    Raises:
        InputError: a folder is no run folder, or its run scored nothing.
    """
    return write_ranking(path, rank([Run.read(folder) for folder in folders]))


def comparison_pictures(result: GridResult) -> list[Picture]:
    """The figures of a comparison."""
    return pictures(result.rows(), None)
