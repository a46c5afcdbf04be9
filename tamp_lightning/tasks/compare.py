"""A comparison: many ways to prune one checkpoint, scored on the same questions; one run folder per cell."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape

from tamp_lightning.config.recipe import CompareRecipe, PruneRecipe, ScoreChoice
from tamp_lightning.errors import InputError
from tamp_lightning.files import write_json, write_text
from tamp_lightning.methods.method import Method
from tamp_lightning.reporting.grid import GridResult, Group
from tamp_lightning.reporting.grid_page import write_grid
from tamp_lightning.reporting.grid_table import markdown, table
from tamp_lightning.reporting.run import Run
from tamp_lightning.runs.environment import environment
from tamp_lightning.runs.folder import RunFolder
from tamp_lightning.tasks.measured import measure_alike, reuse_measurements
from tamp_lightning.tasks.prune import prune_job
from tamp_lightning.tasks.prune_setup import Job

LOCKS = ".locks"
"""Folder of a comparison with a lock for each cell that is being run."""


@dataclass(frozen=True)
class Cell:
    """One method at one sparsity on one draw of calibration samples."""

    method: str
    sparsity: float
    seed: int
    recipe: PruneRecipe

    @property
    def name(self) -> str:
        """Name of its run folder."""
        return f"{self.method}-{100 * self.sparsity:g}-{self.seed}"

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
        for seed in grid.seeds:
            for sparsity in grid.sparsities:
                for name in grid.methods:
                    prune = PruneRecipe(
                        model=replace(recipe.model, dtype=dtype),
                        method=replace(recipe.methods[name], sparsity=sparsity),
                        calibration=replace(recipe.calibration, seed=seed),
                        scores=recipe.scores,
                        seed=recipe.seed,
                        plugins=recipe.plugins,
                        trainer=recipe.trainer,
                    )
                    cell = Cell(name, sparsity, seed, prune)
                    yield replace(cell, recipe=replace(prune, out=str(out / "cells" / cell.name)))


def run_compare(recipe: CompareRecipe, console: Console) -> Path:
    """Run every cell that is not there yet, then say what all of them show.

    The same command may run several times at once, also on several machines that share the folder: each cell is run
    by one of them, and the one that ends last sums up.

    Raises:
        InputError, FileNotFoundError: bad input, a cell of the same name was made by another recipe, or there is
            nothing to sum up.
    """
    out = Path(recipe.out or "runs/compare")
    cells = grid_cells(recipe, out)
    done = [cell for cell in cells if is_done(cell)]
    console.print(f"{len(cells)} cells, {len(done)} of them there already: {out}", soft_wrap=True)
    if recipe.summary_only and not done:
        raise InputError(f"summary_only is true, but no cell of {out} is finished: leave it out to run them")
    for cell in cells if not recipe.summary_only else []:
        with _claimed(out / LOCKS / cell.name) as mine:
            if mine and not is_done(cell):
                line = _run_cell(cell, [other for other in cells if is_done(other)], recipe.keep_models)
                console.print(f"{sum(map(is_done, cells))}/{len(cells)} {cell.name}: {line}")
    done = [cell for cell in cells if is_done(cell)]
    if recipe.summary_only or len(done) == len(cells):
        _summarise(done, recipe.reference, out, console)
    else:
        console.print(f"cells left to other commands: {len(cells) - len(done)}; the last of them sums up")
    return out


@contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether the lock is this process's while inside; a process that is killed holds none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _run_cell(cell: Cell, done: list[Cell], keep_model: bool) -> str:
    """Run a cell with what is known already: scores of dense blocks in the cells done; the dense model's answers are
    in the cache."""
    job = Job.prepare(cell.recipe, cell.name)
    if job.processes > 1:
        raise InputError(f"trainer asks for {job.processes} processes: a comparison runs in one, set devices to 1")
    if cell.recipe.scores.rides:
        raise InputError("scores.mode is layer_wise; a comparison scores whole models: set scores.mode: whole")
    job.score_dense()
    _check_dense(job)
    alike = next((other for other in done if measure_alike(cell.recipe, other.recipe)), None)
    if alike and job.state and not job.state.resumes:
        reuse_measurements(alike.folder, job.state, job.stream)
    run, metrics = prune_job(job, cell.text)
    if not keep_model:
        shutil.rmtree(RunFolder(job.out).model)
    assert metrics is not None
    seconds = sum(run["seconds"].values())
    kept, near = metrics["retention"], metrics["fidelity"]
    told = [
        f"retention {kept:.1f} %" if kept is not None else "no retention",
        *([f"KL {near['kl']:.3f}"] if near else []),
    ]
    return ", ".join([*told, f"{seconds:.0f} s"])


def _check_dense(job: Job) -> None:
    """Refuse benchmarks that the dense model cannot do, before anything is pruned.

    Raises:
        InputError: it scores nothing on one: nothing can be kept of that.
    """
    for task, scores in zip(job.tasks, job.dense, strict=True):
        for name, value in task.headline(scores.results).items():
            if not value > 0:
                raise InputError(f"the dense model scores nothing on {name}, so methods cannot be compared on it")


def _summarise(cells: list[Cell], reference: str, out: Path, console: Console) -> None:
    """compare.json, compare.md and report.html, and the table in the terminal."""
    runs: dict[tuple[str, float], list[Run]] = {}
    for cell in cells:
        runs.setdefault((cell.method, cell.sparsity), []).append(Run.read(Path(str(cell.recipe.out))))
    result = GridResult([Group(*key, own) for key, own in runs.items()], reference)
    rows = result.rows()
    correlation = result.rank_correlation()
    content = {"reference": reference, "runs": sum(map(len, runs.values())), "spearman_kl_retention": correlation}
    content["rows"] = rows
    write_json(out / "compare.json", content | environment())
    write_text(out / "compare.md", markdown(rows, reference))
    first = next(iter(runs.values()))[0]
    metrics = first.metrics or {}
    told = {"model": first.model, "split": metrics["split"], "questions": metrics["questions"]}
    page = write_grid(out, rows, reference, correlation, told)
    console.print(table(rows, reference))
    console.print(f"report: [bold]{escape(str(page))}[/bold]", soft_wrap=True, highlight=False)


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
    content = yaml.safe_load(text)
    scores = asdict(ScoreChoice()) | content.get("scores", {})
    method = content.get("method", {})
    sections = {name: held for name, held in asdict(Method()).items() if isinstance(held, dict)}
    method = method | {name: held | method.get(name, {}) for name, held in sections.items()}
    return {"plugins": []} | content | {"trainer": None, "scores": scores, "method": method}
