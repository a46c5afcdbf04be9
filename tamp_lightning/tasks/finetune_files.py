"""What a finetune run leaves in its folder beside the checkpoint."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tamp_lightning.evaluation.summary import write_predictions
from tamp_lightning.reporting.finetune import show_finetuned
from tamp_lightning.runs.environment import environment, peak_memory_bytes
from tamp_lightning.runs.folder import RunFolder
from tamp_lightning.tasks.finetune_scores import finetuned_rows, score_all, summarise_finetuned, write_finetuned
from tamp_lightning.tasks.finetune_setup import Job


def report(job: Job, facts: dict[str, Any], files: dict[str, str], console: Console) -> None:
    """Score what was trained beside what it came from, write it down and print it; run.json comes last.

    Args:
        job: the run, its checkpoint written.
        facts: what is worth saying about the training.
        files: sha256 of every file of the checkpoint.
        console: where scores are printed.
    """
    start, folder, metrics = job.start, RunFolder(job.out), None
    if tasks := job.scorer.tasks:
        folders = {"dense": job.dense, "before": start.target.folder, "after": folder.model}
        found = score_all(folders, job.scorer)
        metrics = summarise_finetuned(tasks, found)
        rows = finetuned_rows(tasks, found)
        write_predictions(folder.predictions, rows)
        write_finetuned(job.out, f"{job.name}: {start.target.folder.name} finetuned", tasks, rows, metrics)
        folder.write_metrics(metrics)
    run = {
        "recipe": job.name,
        "mode": job.recipe.mode,
        "source": str(job.dense) if job.dense else start.source,
        "start": str(start.run or start.target.folder),
        "checkpoint": str(folder.model),
        "seed": job.recipe.seed,
        "sparsity": start.sparsity,
        "masks_sha256": start.digest(),
        **facts,
        "resumed": job.recipe.resume,
        "seconds": job.clock.seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        **environment(),
        "files": files,
    }
    folder.write_run(run)
    show_finetuned(console, metrics, run)
