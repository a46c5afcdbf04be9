"""A comparison: many ways to prune one checkpoint, scored on the same questions; one run folder per cell."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from tamp_lightning.config.recipe import CompareRecipe
from tamp_lightning.errors import InputError
from tamp_lightning.tasks.compare_cells import Cell, grid_cells, is_done, unpaired
from tamp_lightning.tasks.compare_summary import summarise
from tamp_lightning.tasks.measured import measure_alike, reuse_measurements
from tamp_lightning.tasks.prune import prune_job
from tamp_lightning.tasks.prune_parts import Scoring
from tamp_lightning.tasks.prune_setup import prepare

LOCKS = ".locks"
"""Folder of a comparison with a lock for each cell that is being run."""


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
    for line in unpaired(cells, recipe.reference):
        console.print(line, soft_wrap=True)
    if recipe.summary_only and not done:
        raise InputError(f"summary_only is true, but no cell of {out} is finished: leave it out to run them")
    for cell in cells if not recipe.summary_only else []:
        with _claimed(out / LOCKS / cell.name) as mine:
            if mine and not is_done(cell):
                line = _run_cell(cell, [other for other in cells if is_done(other)], recipe.keep_models)
                console.print(f"{sum(map(is_done, cells))}/{len(cells)} {cell.name}: {line}")
    done = [cell for cell in cells if is_done(cell)]
    if recipe.summary_only or len(done) == len(cells):
        summarise(done, recipe.reference, out, console)
    else:
        console.print(f"cells left to other commands: {len(cells) - len(done)}; the last of them sums up")
    return out


@contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether the lock is this process's while inside; a process that is killed holds none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
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
    job = prepare(cell.recipe, cell.name, cell.text)
    if job.place.processes > 1:
        raise InputError(
            f"trainer asks for {job.place.processes} processes: a comparison runs in one, set devices to 1"
        )
    if job.scoring.layerwise is not None:
        raise InputError("scores.mode is layer_wise; a comparison scores whole models: set scores.mode: whole")
    job.scoring.score_dense()
    _check_dense(job.scoring)
    alike = next((other for other in done if measure_alike(cell.recipe, other.recipe)), None)
    if alike and job.pruner.state and not job.resumes:
        reuse_measurements(alike.folder, job.pruner.state, job.pruner.stream)
    run, metrics = prune_job(job)
    if not keep_model:
        shutil.rmtree(job.place.folder.model)
    assert metrics is not None
    seconds = sum(run["seconds"].values())
    kept, near = metrics["retention"], metrics["fidelity"]
    told = [
        f"retention {kept:.1f} %" if kept is not None else "no retention",
        *([f"KL {near['kl']:.3f}"] if near else []),
    ]
    return ", ".join([*told, f"{seconds:.0f} s"])


def _check_dense(scoring: Scoring) -> None:
    """Refuse benchmarks that the dense model cannot do, before anything is pruned.

    Raises:
        InputError: it scores nothing on one: nothing can be kept of that.
    """
    for task, scores in zip(scoring.tasks, scoring.dense, strict=True):
        for name, value in task.headline(scores.results).items():
            if not value > 0:
                raise InputError(f"the dense model scores nothing on {name}, so methods cannot be compared on it")
