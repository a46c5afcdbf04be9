"""What a prune run leaves in its folder."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tamp_lightning.evaluation.comparison import Scored
from tamp_lightning.passes.pruned import Pruned
from tamp_lightning.reporting.card import Base, prune_card, write_cards
from tamp_lightning.reporting.examples import examples_content, worst_flips
from tamp_lightning.runs.environment import environment, peak_memory_bytes
from tamp_lightning.runs.folder import RunFolder
from tamp_lightning.tasks.prune_setup import Job

Content = dict[str, Any]
"""Of a JSON file."""


def describe_examples(job: Job, pruned: Pruned, metrics: Content | None, rows: list[Content]) -> Content:
    """Content of examples.json; the pictures are those of the worst flips."""
    worst = worst_flips(Scored(metrics, rows).rows) if metrics else []
    of = {name: task for task in job.tasks for name in task.chance()}
    shown = {str(row["picture"]): of[row["benchmark"]].picture(row["picture"]) for row in worst}
    pictures = {name: picture for name, picture in sorted(shown.items()) if picture is not None}
    samples = (job.samples[index] for index in range(len(job.samples)))
    return examples_content(pruned.chosen, samples, job.stream.model.config, pictures)


def describe_run(job: Job, pruned: Pruned) -> Content:
    """Content of run.json."""
    folder, plan = RunFolder(job.out), pruned.plan
    return {
        "recipe": job.name,
        "source": str(job.source),
        "checkpoint": str(folder.model),
        "dtype": str(job.stream.model.dtype).removeprefix("torch."),
        "seed": job.recipe.seed,
        "sparsity": plan.sparsity,
        "prunable_weights": plan.size,
        "zeroed_weights": plan.zeroed,
        **folder.sizes(job.source),
        "linears": len(plan.linears),
        **_describe_towers(pruned),
        "processes": job.processes,
        "seconds": job.clock.seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        **environment(),
        "files": pruned.files,
    }


def _describe_towers(pruned: Pruned) -> Content:
    if not pruned.towers:
        return {}
    size = sum(row["size"] for row in pruned.towers.values())
    return {
        "towers": {"sparsity": pruned.towers_sparsity, "prunable_weights": size, "linears": len(pruned.towers)},
        "towers_unreached": pruned.unreached,
    }


def write_folder(job: Job, recipe_text: str, pruned: Pruned, run: Content, metrics: Content | None) -> None:
    """Everything but predictions and examples; run.json comes last."""
    folder, recipe, plan = RunFolder(job.out), job.recipe, pruned.plan
    folder.write_recipe(recipe_text)
    folder.write_plan(plan)
    folder.write_bits(plan, pruned.masks)
    folder.write_metrics(metrics)
    base = Base.find(job.source, recipe.model.checkpoint)
    versions = {"python": run["python"], **run["packages"]}
    card = prune_card(base, plan, asdict(recipe.method), asdict(recipe.calibration), metrics, versions)
    run["files"] |= write_cards(folder.model, card, base)
    folder.write_run(run)
