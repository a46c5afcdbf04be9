"""An inspected checkpoint in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tamp_lightning.methods.method import Method
from tamp_lightning.tasks.forecast import Machine, Shape, forecast
from tamp_lightning.tasks.inspect_experts import ExpertFacts
from tamp_lightning.tasks.inspect_facts import Inspection

TYPICAL = (128, 3000)
"""Calibration samples and tokens in each that the activations are counted for."""


def show(console: Console, found: Inspection) -> None:
    """Print an inspection."""
    stored = ", ".join(f"{count} tensors {dtype}" for dtype, count in found.stored.items())
    console.print(f"[bold]{found.model}[/bold] in {found.folder}", soft_wrap=True, highlight=False)
    total = sum(found.parts.values()) + found.block_parameters
    console.print(f"{total / 1e9:.2f} B parameters, {_size(found.disk)} on disk ({stored})", highlight=False)
    if found.refusal is not None:
        console.print(f"[bold red]cannot be pruned[/bold red]: {found.refusal}", soft_wrap=True, highlight=False)
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in (found.kinds or {}).items())
    console.print(
        f"modalities: {', '.join(found.modalities)}; decoder blocks: {found.blocks} ({kinds})", highlight=False
    )
    console.print(_table(found))
    if found.towers:
        console.print(
            f"towers and projector: {found.towers} linears of {found.tower_weights:,} weights, dense unless "
            "towers.sparsity says otherwise, and then those that calibration samples reach",
            highlight=False,
        )
    if found.experts:
        console.print(_experts(found.experts, total), highlight=False)
    for note in found.notes:
        console.print(note, highlight=False)
    samples, tokens = TYPICAL
    console.print(
        f"memory to prune: {_size(found.fixed_memory)} for what is not a block and two blocks, plus "
        f"{_size(samples * tokens * found.token_memory)} for {samples} samples of {tokens:,} tokens "
        f"({found.token_memory:,} bytes a token), plus the working memory of one batch",
        highlight=False,
    )
    if found.method_refusal is not None:
        why = found.method_refusal
        console.print(f"[bold red]cannot be pruned by this method[/bold red]: {why}", soft_wrap=True, highlight=False)


def _experts(found: ExpertFacts, total: int) -> str:
    samples, tokens = TYPICAL
    active = (total - found.weights + found.active) / 1e9
    return (
        f"experts: {found.experts} in each of {found.layers} layers, {found.chosen} for each token; {active:.2f} B "
        f"parameters are active for a token; of {samples} samples of {tokens:,} tokens an expert gets "
        f"{samples * tokens * found.chosen // found.choices:,} where routing is even"
    )


def _table(found: Inspection) -> Table:
    table = Table()
    table.add_column("linear or part", overflow="fold")
    for column in ("shape", "number", "parameters", "pruned"):
        table.add_column(column, justify="right")
    for group in found.groups:
        shape = " x ".join(map(str, group.shape))
        table.add_row(group.name, shape, f"{group.count}", f"{group.weights:,}", "[green]yes[/green]")
    pruned = sum(group.weights for group in found.groups)
    table.add_row("all else in the blocks", "", "", f"{found.block_parameters - pruned:,}", "no")
    table.add_section()
    for name, parameters in found.parts.items():
        table.add_row(name, "", "", f"{parameters:,}", "no")
    table.add_section()
    total = sum(found.parts.values()) + found.block_parameters
    table.add_row("prunable", "", f"{sum(g.count for g in found.groups)}", f"{pruned:,}", f"{pruned / total:.1%}")
    return table


def show_plan(console: Console, shape: Shape, machine: Machine, method: Method) -> None:
    """Print what a run of the method would take on a machine."""
    found = forecast(shape, machine, method)
    title = f"{machine.samples} samples of {machine.tokens:,} tokens, {machine.processes} processes"
    table = Table("", "part", "", title=title, title_justify="left")
    rows = {"seconds": found.seconds, "memory a process": found.memory, "disk": found.disk, "traffic": found.traffic}
    for name, parts in rows.items():
        for part, value in {**parts, **({"all": sum(parts.values())} if name != "traffic" else {})}.items():
            table.add_row(name, part, f"{value:,.1f}" if name == "seconds" else _size(value))
        table.add_section()
    console.print(table)
    console.print(
        "seconds are lower bounds from the rates under --machine, whose defaults were not measured: docs/memory.md",
        highlight=False,
    )


def _size(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
