"""The terminal's account of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from tamp_lightning.reporting.plan import Plan
from tamp_lightning.reporting.wording import benchmark_label, short

BARS = "·▁▂▃▄▅▆▇█"
FIGURES = {"yes_no": ("accuracy", "precision", "recall", "f1", "pred_yes_ratio")}
"""Figures of a benchmark beside its controls; all others have a score."""


def percent(value: float | None) -> str:
    """A share as percent with one decimal, a dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f} %"


def benchmark_table(metrics: Mapping[str, Any]) -> Table:
    """Dense, pruned and retention per benchmark, beside the blind floor.

    Args:
        metrics: content of a run's metrics.json.
    """
    table = Table(title=f"{metrics['questions']} questions, {metrics['split']} split")
    for column in ("benchmark", "blind floor", "dense", "pruned", "retention", "above floor"):
        table.add_column(column, justify="left" if column == "benchmark" else "right")
    for name, row in metrics["benchmarks"].items():
        dense, pruned, floor = row["dense"], row["pruned"], row["floor"]
        above = f"{100 * (pruned - floor) / (dense - floor):.1f} %" if dense > floor else "–"
        ratio = f"{100 * pruned / dense:.1f} %" if dense else "–"
        table.add_row(benchmark_label(name), percent(floor), percent(dense), percent(pruned), ratio, above)
    table.add_section()
    mean, corrected = metrics["retention"], metrics["corrected_retention"]
    above = "–" if corrected is None else f"{corrected:.1f} %"
    table.add_row("mean", "", "", "", f"{mean:.1f} %", above, style="bold")
    return table


def plan_table(plan: Plan) -> Table:
    """Sparsity of every linear as a bar per block, from none to all of its weights; a row per kind of linear."""
    table = Table(box=None, pad_edge=False)
    for column in ("sparsity", "block by block", "mean", "of all", "of kept"):
        table.add_column(column, justify="right" if column in ("mean", "of all", "of kept") else "left", no_wrap=True)
    for (kind, size, kept, sparsity), cells in zip(plan.budget(), plan.cells(), strict=True):
        bars = "".join(" " if cell is None else BARS[round(cell * (len(BARS) - 1))] for cell in cells)
        table.add_row(short(kind, plan.kinds), bars, percent(sparsity), percent(size), percent(kept))
    return table


def show_outcome(
    console: Console, metrics: Mapping[str, Any] | None, run: Mapping[str, Any], plan: Plan | None = None
) -> None:
    """Print scores, sparsity, seconds, memory and where the checkpoint lies; of an uneven plan also where zeros are."""
    console.print()
    if metrics is not None:
        console.print(benchmark_table(metrics))
        fidelity = metrics["fidelity"]
        console.print(
            f"KL to dense on answer tokens {fidelity['kl']:.4f} nats, same first choice on "
            f"{percent(fidelity['top1_agreement'])} of them, answers flipped {percent(metrics['flips'])}"
        )
    if plan is not None and not plan.even:
        console.print(plan_table(plan))
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in run["seconds"].items())
    memory = ", ".join(f"{name} {value / 2**30:.2f} GiB" for name, value in run["peak_memory_bytes"].items())
    console.print(
        f"sparsity {percent(run['sparsity'])} of {run['prunable_weights']:,} prunable weights "
        f"({run['zeroed_weights']:,} zeroed) in {run['linears']} linears, {run['dtype']}"
    )
    if "towers" in run:
        towers, dense = run["towers"], len(run["towers_unreached"])
        left = f"; {dense} more that no calibration sample reached stay dense" if dense else ""
        console.print(
            f"towers: sparsity {percent(towers['sparsity'])} of {towers['prunable_weights']:,} weights "
            f"in {towers['linears']} linears{left}"
        )
    console.print(f"{seconds}; peak memory {memory}")
    console.print(f"pruned checkpoint: [bold]{run['checkpoint']}[/bold]", soft_wrap=True)


def control_table(rows: Mapping[str, Mapping[str, Mapping[str, float]]], floor: Mapping[str, float]) -> Table:
    """One row per way of showing the media (own, shuffled, ...), the blind floor last."""
    heads = {"score": "", "pred_yes_ratio": "says yes"}
    table = Table()
    table.add_column("shown")
    columns = {name: FIGURES.get(name, ("score",)) for name in next(iter(rows.values()))}
    for name, figures in columns.items():
        for figure in figures:
            table.add_column(f"{name.replace('_', '/')} {heads.get(figure, figure)}".strip(), justify="right")
    for shown, results in rows.items():
        table.add_row(shown, *(percent(results[k][f]) for k, fs in columns.items() for f in fs))
    blind = [cell for k, fs in columns.items() for cell in (percent(floor[k]), *["–"] * (len(fs) - 1))]
    table.add_row("never seen (majority)", *blind)
    return table
