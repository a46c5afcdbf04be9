"""Cells of a comparison share what they measure, and several commands share the cells."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from tamp_lightning.config.recipe import CalibrationChoice, CompareRecipe, Grid, ModelChoice, ScoreChoice
from tamp_lightning.methods.allocation import Das
from tamp_lightning.methods.method import Method
from tamp_lightning.tasks import compare
from tamp_lightning.tasks.compare import grid_cells, run_compare
from tamp_lightning.tasks.measured import measure_alike
from tamp_lightning.tasks.prune import run_prune
from tamp_lightning.tasks.prune_setup import prepare

CPU = {"accelerator": "cpu", "enable_progress_bar": False}


@pytest.fixture
def recipe(bed, processor, tmp_path):
    """Makes a comparison on a tiny checkpoint."""
    bed.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")

    def make(methods: dict[str, Method], *grids: Grid) -> CompareRecipe:
        return CompareRecipe(
            model=ModelChoice(checkpoint=str(tmp_path / "model")),
            methods=methods,
            grids=list(grids),
            reference=next(iter(methods)),
            calibration=CalibrationChoice(samples=2, turns=1),
            scores=ScoreChoice(slice="quick"),
            trainer=CPU,
            out=str(tmp_path / "out"),
        )

    return make


def plan(run: Path) -> dict:
    return json.loads((run / "plan.json").read_text())


def measured(run: Path) -> float:
    return json.loads((run / "run.json").read_text())["seconds"]["measure"]


@pytest.mark.parametrize("allocation", ["das", "owl"])
def test_a_cell_that_is_handed_its_scores_ends_in_the_same_masks(recipe, tmp_path, allocation):
    methods = {"first": Method(tokens="all", allocation=allocation), "second": Method(allocation=allocation)}
    out = run_compare(recipe(methods, Grid(["first", "second"], [0.5, 0.6])), Console(quiet=True)) / "cells"
    cells = [out / f"{name}-{sparsity}-42" for name in methods for sparsity in (50, 60)]
    assert len({measured(cell) for cell in cells}) == 1
    (cell,) = grid_cells(recipe({"second": methods["second"]}, Grid(["second"], [0.6])), tmp_path / "alone")
    alone = run_prune(prepare(cell.recipe, cell.name, cell.text), Console(quiet=True))
    assert plan(cells[-1]) == plan(alone)
    assert measured(cells[-1]) != measured(alone)


def test_cells_that_measure_otherwise_are_told_apart(recipe, tmp_path):
    methods = {
        "tamp": Method(),
        "positive": Method(das=Das(positive_only=True)),
        "uniform": Method(allocation="uniform"),
        "at_once": Method(mode="one_shot"),  # measures and prunes in one walk
    }
    cells = grid_cells(recipe(methods, Grid(list(methods), [0.5], [1, 2])), tmp_path)
    alike = {(a.name, b.name) for a in cells for b in cells if measure_alike(a.recipe, b.recipe)}
    assert alike == {(name, name) for name in ("tamp-50-1", "tamp-50-2", "positive-50-1", "positive-50-2")}


def test_a_cell_that_another_command_runs_is_left_to_it(recipe, monkeypatch, capsys):
    two = recipe({"a": Method(allocation="uniform"), "b": Method()}, Grid(["a", "b"]))
    seen = []
    monkeypatch.setattr(compare, "_run_cell", lambda cell, *_: seen.append(cell.name) or "done")
    monkeypatch.setattr(compare, "is_done", lambda cell: cell.name in seen)
    locks = Path(two.out) / compare.LOCKS
    locks.mkdir(parents=True)
    with FileLock(locks / "a-50-42"):
        run_compare(two, Console(width=100))
    assert seen == ["b-50-42"]
    assert "cells left to other commands: 1" in capsys.readouterr().out


def test_finished_cells_can_be_summed_up_before_the_others(recipe, monkeypatch):
    two = replace(recipe({"a": Method(allocation="uniform"), "b": Method()}, Grid(["a", "b"])), summary_only=True)
    with pytest.raises(ValueError, match=r"no cell of .* is finished"):
        run_compare(two, Console(quiet=True))
    said = []
    monkeypatch.setattr(compare, "summarise", lambda cells, *_: said.extend(cell.name for cell in cells))
    monkeypatch.setattr(compare, "is_done", lambda cell: cell.method == "a")
    run_compare(two, Console(quiet=True))
    assert said == ["a-50-42"]
