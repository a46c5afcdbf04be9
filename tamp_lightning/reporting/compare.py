"""Several runs side by side: retention and KL against sparsity, and a ranking with paired intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tamp_lightning.errors import InputError
from tamp_lightning.metrics.intervals import Interval
from tamp_lightning.reporting.curves import Curve, against_sparsity, ranking
from tamp_lightning.reporting.gallery import Picture
from tamp_lightning.reporting.page import embedded, write_page
from tamp_lightning.reporting.run import Run
from tamp_lightning.reporting.scores import Scored, paired, paired_kl, same_questions
from tamp_lightning.reporting.wording import method_name


@dataclass(frozen=True)
class Ranked:
    """One run in the ranking."""

    name: str
    """Unlike that of any other run."""
    run: Run
    scored: Scored
    behind: Interval | None
    """Retention less that of the first, in points, over the same questions; None for the first, or if they differ."""
    kl_behind: Interval | None
    """Likewise the KL to the dense model, mean over questions, in nats."""


def rank(runs: Sequence[Run]) -> list[Ranked]:
    """Runs by retention, the largest first.

    Raises:
        InputError: a run scored nothing, or its dense model scores nothing on some benchmark.
    """
    held = []
    for name, run in zip(names(runs), runs, strict=True):
        if run.scored is None or run.scored.retention is None:
            raise InputError(f"{run.folder} has no scores to compare: prune it with --scores.benchmarks=easy_vqa")
        held.append((run.scored.retention.value, name, run, run.scored))
    held.sort(key=lambda item: -item[0])
    best = held[0][3]
    found = []
    for _, name, run, scored in held:
        several = len({row["picture"] for row in scored.rows}) > 1
        pair = scored is not best and several and same_questions(scored, best)
        behind = (paired(scored, best), paired_kl(scored, best)) if pair else (None, None)
        found.append(Ranked(name, run, scored, *behind))
    return found


def names(runs: Sequence[Run]) -> list[str]:
    """Method and sparsity of every run; of those that agree in both, also the folder."""
    plain = [run.name for run in runs]
    return [n if plain.count(n) == 1 else f"{n} ({r.folder.name})" for n, r in zip(plain, runs, strict=True)]


def methods(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by method, whatever its sparsity; of several with one published name, also a folder."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps({**run.recipe["method"], "sparsity": None}, sort_keys=True)
        groups.setdefault(key, []).append(run)
    plain = [method_name(own[0].recipe["method"]) for own in groups.values()]
    return {
        name if plain.count(name) == 1 else f"{name} ({own[0].folder.name})": own
        for name, own in zip(plain, groups.values(), strict=True)
    }


def write_comparison(folders: Sequence[Path], path: Path) -> Path:
    """Write a page that compares finished runs.

    Args:
        folders: run folders, such as the cells of `tamp run compare_smol`.
        path: the page.

    Raises:
        InputError: a folder is no run folder, or its run scored nothing.
    """
    ranked = rank([Run.read(folder) for folder in folders])
    context = {
        "title": f"{len(ranked)} prune runs compared",
        "ranked": ranked,
        "models": sorted({own.run.model for own in ranked}),
        "questions": sorted({(own.scored.metrics["split"], len(own.scored.rows)) for own in ranked}),
        "paired": all(own.behind is not None for own in ranked[1:]),
        "pictures": embedded(comparison_pictures(ranked)),
    }
    return write_page(path, "comparison.html", context)


def comparison_pictures(ranked: Sequence[Ranked]) -> list[Picture]:
    """The figures of a comparison."""
    lines = methods([own.run for own in ranked])
    kept = [Curve(name, [(r.run["sparsity"], _scored(r).retention) for r in own]) for name, own in lines.items()]
    kl = [Curve(name, [(r.run["sparsity"], _scored(r).kl_interval) for r in own]) for name, own in lines.items()]
    draw = lambda s: against_sparsity(kl, "KL, nats", s)  # noqa: E731
    found = [Picture("retention", "Retention against sparsity", lambda s: against_sparsity(kept, "retention, %", s))]
    if any(value is not None for curve in kl for _, value in curve.points):
        found.append(Picture("kl", "KL to the dense model against sparsity", draw))
    behind = {own.name: own.behind for own in ranked if own.behind}
    if behind:
        label = f"points of retention behind {ranked[0].name}"
        found.append(Picture("ranking", "Retention behind the first run", lambda s: ranking(behind, label, s)))
    return found


def _scored(run: Run) -> Scored:
    assert run.scored is not None  # rank() saw to it
    return run.scored
