"""The terminal's account of a finetuning run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from tamp_lightning.reporting.table import change_cell, percent
from tamp_lightning.reporting.wording import LABELS, p_value


def scores_table(metrics: Mapping[str, Any]) -> Table:
    """One row per benchmark: chance, the dense model where it is known, before and after.

    Args:
        metrics: content of metrics.json.
    """
    split = f", {metrics['split']} split" if metrics["split"] else ""
    table = Table(title=f"{metrics['questions']} questions{split}")
    table.add_column("benchmark")
    for column in ("chance", *metrics["scores"]):
        table.add_column(column, justify="right")
    for kind, floor in metrics["floor"].items():
        row = [percent(scores[kind]) for scores in metrics["scores"].values()]
        table.add_row(LABELS.get(kind, kind), percent(floor), *row)
    return table


def show_finetuned(console: Console, metrics: Mapping[str, Any] | None, run: Mapping[str, Any]) -> None:
    """Print scores, held-out loss, seconds, memory and where the checkpoint lies."""
    console.print()
    if metrics is not None:
        console.print(scores_table(metrics))
        gained = metrics["gained"]
        console.print(
            f"after beside before: {change_cell(gained['change'])} points, {gained['verdict']}; McNemar's exact test "
            f"over all answers p {p_value(gained['mcnemar'])}",
            markup=False,
        )
    losses = " ".join(f"{value:.3f}" for value in run["held_out_loss"])
    console.print(f"held-out loss {losses}; kept step {run['best']} of {run['steps']}")
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in run["seconds"].items())
    memory = ", ".join(f"{name} {value / 2**30:.2f} GiB" for name, value in run["peak_memory_bytes"].items())
    console.print(f"{seconds}; peak memory {memory}")
    console.print(f"sparsity {percent(run['sparsity'])}, as before; {run['trained_parameters']:,} parameters trained")
    console.print(f"finetuned checkpoint: [bold]{run['checkpoint']}[/bold]", soft_wrap=True)
