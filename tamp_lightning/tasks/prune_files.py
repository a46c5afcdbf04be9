"""What a prune run leaves in its folder."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tamp_lightning.evaluation.comparison import Scored
from tamp_lightning.evaluation.summary import write_predictions
from tamp_lightning.passes.pruned import Pruned
from tamp_lightning.reporting.card import Base, prune_card, write_cards
from tamp_lightning.reporting.examples import examples_content, worst_flips
from tamp_lightning.runs.clock import PhaseClock
from tamp_lightning.runs.environment import environment, peak_memory_bytes
from tamp_lightning.runs.folder import RunFolder
from tamp_lightning.runs.place import Place
from tamp_lightning.tasks.prune_parts import Provenance, Scoring

Content = dict[str, Any]
"""Of a JSON file."""


def describe_run(place: Place, origin: Provenance, pruned: Pruned, clock: PhaseClock) -> Content:
    """Content of run.json."""
    plan, folder = pruned.plan, place.folder
    return {
        "recipe": origin.recipe,
        "source": str(origin.source),
        "checkpoint": str(folder.model),
        "dtype": str(origin.model.dtype).removeprefix("torch."),
        "seed": origin.seed,
        "sparsity": plan.sparsity,
        "prunable_weights": plan.size,
        "zeroed_weights": plan.zeroed,
        **folder.sizes(origin.source),
        "linears": len(plan.linears),
        **_describe_towers(pruned),
        "processes": place.processes,
        "seconds": clock.seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        **environment(),
        "files": pruned.files,
    }


def _describe_towers(pruned: Pruned) -> Content:
    if not pruned.towers:
        return {}
    size = sum(row["size"] for row in pruned.towers.values())
    return {
        "towers": {"sparsity": pruned.plan.towers_sparsity, "prunable_weights": size, "linears": len(pruned.towers)},
        "towers_unreached": pruned.unreached,
    }


def write_folder(
    folder: RunFolder, origin: Provenance, scoring: Scoring, pruned: Pruned, run: Content, metrics: Content | None
) -> None:
    """Write everything but the model; run.json comes last.

    Args:
        folder: which.
        origin: where the run came from.
        scoring: of both models.
        pruned: what the passes decided.
        run: content of run.json; the cards' checksums are added.
        metrics: content of metrics.json, if anything was scored.
    """
    rows, plan = scoring.rows(), pruned.plan
    if metrics is not None:
        write_predictions(folder.predictions, rows)
    folder.write_examples(_examples(origin, scoring, pruned, rows, metrics))
    folder.write_recipe(origin.text)
    folder.write_plan(plan)
    folder.write_bits(plan, pruned.masks)
    folder.write_metrics(metrics)
    run["files"] |= _write_cards(folder, origin, pruned, run, metrics)
    folder.write_run(run)


def _examples(
    origin: Provenance, scoring: Scoring, pruned: Pruned, rows: list[Content], metrics: Content | None
) -> Content:
    """Content of examples.json; the pictures are those of the worst flips."""
    worst = worst_flips(Scored(metrics, rows).rows) if metrics else []
    of = {name: task for task in scoring.tasks for name in task.chance()}
    shown = {str(row["picture"]): of[row["benchmark"]].picture(row["picture"]) for row in worst}
    pictures = {name: picture for name, picture in sorted(shown.items()) if picture is not None}
    samples = (origin.samples[index] for index in range(len(origin.samples)))
    return examples_content(pruned.chosen, samples, origin.model.config, pictures)


def _write_cards(
    folder: RunFolder, origin: Provenance, pruned: Pruned, run: Content, metrics: Content | None
) -> dict[str, str]:
    """Write the model cards; sha256 by name."""
    base = Base.find(origin.source, origin.checkpoint)
    versions = {"python": run["python"], **run["packages"]}
    card = prune_card(base, pruned.plan, asdict(origin.method), asdict(origin.calibration), metrics, versions)
    return write_cards(folder.model, card, base)
