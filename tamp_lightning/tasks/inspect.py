"""`tamp inspect`: what a checkpoint is, what of it would be pruned and with how much memory, from its headers alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PreTrainedModel

from tamp_lightning.checkpoint.facts import ModelFacts
from tamp_lightning.checkpoint.opened import Checkpoint
from tamp_lightning.checkpoint.reader import CheckpointReader
from tamp_lightning.checkpoint.skeleton import build_skeleton
from tamp_lightning.errors import InputError
from tamp_lightning.export.layout import described_form
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.selection import ALL, Selection
from tamp_lightning.passes.callbacks.attention import check_attention
from tamp_lightning.passes.callbacks.experts import check_experts
from tamp_lightning.stream.rehearsal import rehearse
from tamp_lightning.tasks.forecast import Machine
from tamp_lightning.tasks.inspect_facts import Inspection, described, parts
from tamp_lightning.tasks.inspect_print import show, show_plan
from tamp_lightning.testbeds.checkpoints import resolve


def run_inspect(
    checkpoint: str,
    console: Console,
    selection: Selection = ALL,
    method: Method | None = None,
    machine: Machine | None = None,
) -> bool:
    """Print what a checkpoint is; return whether it can be pruned by the method, TAMP by default.

    With a machine, also print what that would take there.

    Raises:
        InputError, FileNotFoundError: it cannot be read.
    """
    found = inspect_checkpoint(resolve(checkpoint), selection, method)
    show(console, found)
    if machine is not None and found.shape is not None:
        show_plan(console, found.shape, machine, method or Method())
    return found.refusal is None and found.method_refusal is None


def inspect_checkpoint(folder: Path, selection: Selection = ALL, method: Method | None = None) -> Inspection:
    """Read the headers of a checkpoint, and run its decoder's loop without weights; nothing is written.

    Args:
        folder: a safetensors checkpoint.
        selection: which linears would be pruned.
        method: how it would be pruned; None = TAMP.

    Raises:
        InputError: it is no checkpoint, or its architecture is unknown. What can be read but not pruned is no error.
    """
    if form := described_form(folder):
        raise InputError(
            f"{folder} is {form}. It is loaded but not pruned: "
            f"`tamp export {folder} --format dense --out NEW` turns it back"
        )
    reader = CheckpointReader(folder)
    stored = Counter(info.dtype for shard in reader.shards.values() for info in shard.tensors.values())
    disk = sum(shard.size for shard in reader.shards.values())
    model = build_skeleton(reader, None)
    common = (folder, type(model).__name__, dict(stored.most_common()), disk)
    try:
        facts = rehearse(model, Checkpoint.of(reader, model, selection).facts)
    except InputError as error:
        return Inspection(*common, parts(model, None), refusal=str(error))
    found = described(model, facts) | _fitted(model, facts, method or Method())
    return Inspection(*common, parts(model, facts.blocks), **found)


def _fitted(model: PreTrainedModel, facts: ModelFacts, method: Method) -> dict[str, Any]:
    """Whether a method fits the model, and what it does otherwise in some blocks."""
    without = [k for k in range(len(facts.linears)) if not facts.attends(k)]
    try:
        method.check({linear.full: linear.shape for linear in facts.all_linears})
        check_experts(model, facts, method)
        if method.token_rule.needs_attention:
            check_attention(model, facts, method.tokens)
    except InputError as error:
        return {"method_refusal": str(error)}
    if not (without and method.token_rule.needs_attention):
        return {}
    return {
        "notes": (
            f"{len(without)} of {len(facts.linears)} blocks have no attention by which tokens {method.tokens} could "
            "choose: all tokens count there",
        )
    }
