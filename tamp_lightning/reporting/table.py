"""The terminal's account of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from tamp_lightning.reporting.plan import Plan
from tamp_lightning.reporting.wording import benchmark_label, p_value, short

BARS = "·▁▂▃▄▅▆▇█"
FIGURES = {"yes_no": ("accuracy", "precision", "recall", "f1", "pred_yes_ratio")}
"""Figures of a benchmark beside its controls; all others have a score."""


def percent(value: float | None) -> str:
    """A share as percent with one decimal, a dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f} %"


def benchmark_table(metrics: Mapping[str, Any]) -> Table:
    """Chance, dense, pruned, the change with its interval and retention per benchmark; retention over all.

    Args:
        metrics: content of a run's metrics.json.
    """
    split = f", {metrics['split']} split" if metrics["split"] else ""
    table = Table(title=f"{metrics['questions']} questions{split}")
    for column in ("benchmark", "chance", "dense", "pruned", "change, points", "retention", "above chance"):
        table.add_column(column, justify="left" if column == "benchmark" else "right")
    for name, row in metrics["benchmarks"].items():
        dense, pruned, floor = row["dense"], row["pruned"], row["floor"]
        above = f"{100 * (pruned - floor) / (dense - floor):.1f} %" if dense > floor else "–"
        ratio = f"{100 * pruned / dense:.1f} %" if dense else "–"
        cells = percent(floor), percent(dense), percent(pruned), change_cell(row["change"]), ratio, above
        table.add_row(benchmark_label(name), *cells)
    table.add_section()
    mean, corrected = (None if metrics[k] is None else metrics[k] / 100 for k in ("retention", "corrected_retention"))
    table.add_row("mean", "", "", "", change_cell(metrics["change"]), percent(mean), percent(corrected), style="bold")
    return table


def change_cell(change: Mapping[str, float | None]) -> str:
    """A difference of shares in points with its 95 % interval."""
    value, low, high = (change[k] for k in ("value", "low", "high"))
    if value is None:
        return "–"
    ends = f" [{100 * low:+.1f}, {100 * high:+.1f}]" if low is not None and high is not None else ""
    return f"{100 * value:+.1f}{ends}"


def verdict_line(metrics: Mapping[str, Any]) -> str:
    """The pooled verdict, and those benchmarks that say something else."""
    whole = metrics["verdict"]
    others = [
        f"{benchmark_label(k)}: {r['verdict']}" for k, r in metrics["benchmarks"].items() if r["verdict"] != whole
    ]
    apart = f" ({'; '.join(others)})" if others else ""
    return f"pruned beside dense: {whole}{apart}; McNemar's exact test over all answers p {p_value(metrics['mcnemar'])}"


def show_scores(console: Console, metrics: Mapping[str, Any]) -> None:
    """Print the scores, the verdict, and how near the pruned model stays to the dense one."""
    console.print(benchmark_table(metrics))
    console.print(verdict_line(metrics))
    flipped, fidelity = f"answers flipped {percent(metrics['flips'])}", metrics["fidelity"]
    if fidelity is None:
        console.print(flipped)
        return
    console.print(
        f"KL to dense on answer tokens {fidelity['kl']:.4f} nats, same first choice on "
        f"{percent(fidelity['top1_agreement'])} of them, {flipped}"
    )


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
        show_scores(console, metrics)
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
