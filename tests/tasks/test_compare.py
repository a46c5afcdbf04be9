"""A comparison's cells: which, in what order, and when one is there already."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tamp_lightning.config.recipe import CompareRecipe, Grid
from tamp_lightning.methods.method import Method
from tamp_lightning.tasks import compare
from tamp_lightning.tasks.compare import grid_cells, run_compare, unpaired

METHODS = {
    "wanda": Method(tokens="all", allocation="uniform"),
    "tamp": Method(),
    "two": Method(allocation="uniform", pattern="2:4"),
}


def recipe(*grids, **options):
    return CompareRecipe(methods=METHODS, grids=list(grids), **options)


def test_cells_come_seed_by_seed_and_each_once(tmp_path):
    grids = Grid(["wanda", "tamp"], [0.6, 0.5], [1, 2]), Grid(["tamp", "two"], [0.5], [2])
    names = [cell.name for cell in grid_cells(recipe(*grids), tmp_path)]
    first = [f"{m}-{s}-1" for s in (60, 50) for m in ("wanda", "tamp")]
    assert names == [*first, *(name.replace("-1", "-2") for name in first), "two-50-2"]


def test_a_cell_is_a_prune_recipe(tmp_path):
    grid = Grid(["tamp"], [0.6], [7], "float32")
    (cell,) = grid_cells(recipe(grid, seed=3), tmp_path)
    made = cell.recipe
    assert (made.method, made.calibration.seed, made.seed) == (replace(METHODS["tamp"], sparsity=0.6), 7, 3)
    assert (made.model.dtype, made.out) == ("float32", str(tmp_path / "cells/tamp-60-7"))
    assert yaml.safe_load(cell.text)["method"]["sparsity"] == 0.6
    assert str(tmp_path) not in cell.text


def test_a_grid_may_calibrate_on_something_else(tmp_path):
    grids = Grid(["tamp"], [0.6]), Grid(["tamp"], [0.6], source="captions"), Grid(["tamp"], [0.6], source="easy_vqa")
    own, other = grid_cells(recipe(*grids), tmp_path)  # the last names the comparison's own
    assert (own.name, own.source, own.recipe.calibration.source) == ("tamp-60-42", None, "easy_vqa")
    assert (other.name, other.source, other.recipe.calibration.source) == (
        "tamp-60-42-captions",
        "captions",
        "captions",
    )


def test_what_has_no_reference_is_told(tmp_path):
    grids = Grid(["wanda", "tamp"], [0.6]), Grid(["tamp"], [0.6, 0.5], source="captions"), Grid(["tamp"], [0.5])
    told = unpaired(grid_cells(recipe(*grids), tmp_path), "wanda")
    starts = [line.partition(": the")[0] for line in told]
    assert starts == [f"no wanda at {s}" for s in ("60 % with source: captions", "50 % with source: captions", "50 %")]


@pytest.mark.parametrize(
    ("grids", "options", "complaint"),
    [
        ([], {}, "grids is empty"),
        ([Grid(["wnda"])], {}, r"grids\[0\]\.methods names 'wnda', which is not among.*did you mean 'wanda'"),
        ([Grid(["tamp"])], {"reference": "x"}, "reference names 'x', which is not among methods"),
        ([Grid(["two"], [0.6])], {}, "2:4"),
    ],
)
def test_impossible(tmp_path, grids, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        grid_cells(recipe(*grids, **options), tmp_path)


@pytest.mark.parametrize("name", ["methods", "sparsities", "seeds"])
def test_an_empty_grid_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} of a grid is empty"):
        Grid(**{"methods": ["wanda"], name: []})


def test_a_cell_of_another_recipe_is_refused_before_anything_is_run(tmp_path, monkeypatch):
    grid = Grid(["wanda", "tamp"])
    for cell in grid_cells(recipe(grid), tmp_path):
        folder = Path(cell.recipe.out)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
        (folder / "recipe.yaml").write_text(cell.text)
    assert all(map(compare.is_done, grid_cells(recipe(grid), tmp_path)))
    elsewhere = recipe(grid, trainer={"accelerator": "gpu", "enable_progress_bar": False})
    assert all(map(compare.is_done, grid_cells(elsewhere, tmp_path)))
    for cell in grid_cells(recipe(grid), tmp_path):  # as versions wrote it that did not know of rounding
        assert "values: none" in cell.text
        older = "".join(line for line in cell.text.splitlines(keepends=True) if "values: none" not in line)
        (Path(cell.recipe.out) / "recipe.yaml").write_text(older)
    assert all(map(compare.is_done, grid_cells(recipe(grid), tmp_path)))
    monkeypatch.setattr(compare, "prepare", None)
    with pytest.raises(ValueError, match=r"wanda-50-42 was made by another recipe: remove it"):
        run_compare(recipe(grid, seed=9, out=str(tmp_path)), console=None)
