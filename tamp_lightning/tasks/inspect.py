"""`tamp inspect`: what a checkpoint is, what of it would be pruned and with how much memory, from its headers alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from tamp_lightning.checkpoint.facts import AUDIO, IMAGE, VIDEO, ModelFacts, tower_linears
from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.checkpoint.opened import Checkpoint
from tamp_lightning.checkpoint.reader import CheckpointReader
from tamp_lightning.checkpoint.skeleton import build_skeleton
from tamp_lightning.errors import InputError
from tamp_lightning.methods.method import Method
from tamp_lightning.passes.callbacks.attention import check_attention
from tamp_lightning.passes.callbacks.experts import check_experts
from tamp_lightning.stream.rehearsal import rehearse
from tamp_lightning.tasks.inspect_experts import ExpertFacts, expert_facts
from tamp_lightning.testbeds.checkpoints import resolve

NAMES = {IMAGE: "image", VIDEO: "video", AUDIO: "audio"}
TYPICAL = (128, 3000)
"""Calibration samples and tokens in each that the activations are counted for."""


@dataclass(frozen=True)
class LinearGroup:
    """Linears of one name and shape, one per block, or matrices of experts, which have a star for their number."""

    name: str
    shape: tuple[int, ...]
    count: int

    @property
    def weights(self) -> int:
        """Weights of all of them."""
        return self.count * math.prod(self.shape)


@dataclass(frozen=True)
class Inspection:
    """What the headers of a checkpoint say."""

    folder: Path
    model: str
    """Class of the model."""
    stored: dict[str, int]
    """Tensors by dtype on disk."""
    disk: int
    """Bytes of its weights."""
    parts: dict[str, int]
    """Parameters of every part outside of the blocks, by module name."""
    refusal: str | None = None
    """Why it would not be pruned by any method; then what follows is empty."""
    method_refusal: str | None = None
    """Why it would not be pruned by the method asked about."""
    notes: tuple[str, ...] = ()
    """What the method does otherwise here than elsewhere."""
    blocks: str = ""
    kinds: dict[str, int] | None = None
    """Decoder blocks by kind."""
    groups: tuple[LinearGroup, ...] = ()
    """What would be pruned."""
    dense: tuple[str, ...] = ()
    """Linears of the blocks that would stay dense."""
    block_parameters: int = 0
    modalities: tuple[str, ...] = ()
    fixed_memory: int = 0
    """Bytes of embeddings, towers, head and two blocks: the current one and its predecessor."""
    token_memory: int = 0
    """Bytes that a calibration token takes between two blocks."""
    towers: int = 0
    """Linears of towers and projector, which are pruned on request."""
    tower_weights: int = 0
    """Weights of all of them."""
    experts: ExpertFacts | None = None
    """None where there are none."""


def inspect_checkpoint(
    folder: Path, include: Sequence[str] = (), exclude: Sequence[str] = (), method: Method | None = None
) -> Inspection:
    """Read the headers of a checkpoint, and run its decoder's loop without weights; nothing is written.

    Args:
        folder: a safetensors checkpoint.
        include: as in a recipe.
        exclude: as in a recipe.
        method: how it would be pruned; None = TAMP.

    Raises:
        InputError: it is no checkpoint, or its architecture is unknown. What can be read but not pruned is no error.
    """
    reader = CheckpointReader(folder)
    stored = Counter(info.dtype for shard in reader.shards.values() for info in shard.tensors.values())
    disk = sum(shard.size for shard in reader.shards.values())
    model = build_skeleton(reader, None)
    common = (folder, type(model).__name__, dict(stored.most_common()), disk)
    try:
        facts = rehearse(model, Checkpoint.of(reader, model, include, exclude).facts)
    except InputError as error:
        return Inspection(*common, _parts(model, None), refusal=str(error))
    found = _described(model, facts) | _fitted(model, facts, method or Method())
    return Inspection(*common, _parts(model, facts.blocks), **found)


def _fitted(model: PreTrainedModel, facts: ModelFacts, method: Method) -> dict:
    """Whether a method fits the model, and what it does otherwise in some blocks."""
    without = [k for k in range(len(facts.linears)) if not facts.attends(k)]
    try:
        method.check({linear.full: linear.shape for linear in facts.all_linears})
        check_experts(facts, method)
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


def _described(model: PreTrainedModel, facts: ModelFacts) -> dict:
    blocks = list(model.get_submodule(facts.blocks).children())
    sizes = [sum(p.numel() for p in block.parameters()) for block in blocks]
    width = max(p.element_size() for p in model.parameters())
    rest = sum(_parts(model, facts.blocks).values())
    modalities = {NAMES[m] for m in facts.modality_ids.values()}
    return {
        "blocks": facts.blocks,
        "kinds": _kinds(model, facts),
        "groups": _groups(facts),
        "dense": _dense(blocks, facts),
        "block_parameters": sum(sizes),
        "modalities": ("text", *(name for name in NAMES.values() if name in modalities)),
        "fixed_memory": width * (rest + sum(sorted(sizes)[-2:])),
        "token_memory": width * model.config.get_text_config().hidden_size,
        **_towers(model, facts),
        "experts": expert_facts(model, blocks),
    }


def _towers(model: PreTrainedModel, facts: ModelFacts) -> dict[str, int]:
    names = tower_linears(model, facts.blocks)
    return {"towers": len(names), "tower_weights": sum(model.get_parameter(f"{n}.weight").numel() for n in names)}


def _kinds(model: PreTrainedModel, facts: ModelFacts) -> dict[str, int]:
    decoder = model.get_submodule(facts.blocks.rpartition(".")[0])
    types = getattr(decoder.config, "layer_types", None)
    if types and len(types) == len(facts.linears) and len(set(types)) > 1:
        return dict(Counter(types))
    return dict(Counter(type(block).__name__ for block in model.get_submodule(facts.blocks).children()))


def _groups(facts: ModelFacts) -> tuple[LinearGroup, ...]:
    found = Counter((kind_of(linear), linear.shape) for linear in facts.all_linears)
    return tuple(LinearGroup(name, shape, count) for (name, shape), count in found.items())


def kind_of(linear: Linear) -> str:
    """Name of a linear in its block, that of a matrix of experts with a star for the expert."""
    piece = linear.piece
    return linear.name if piece is None else f"{piece.layer}.*.{linear.name.rpartition('.')[2]}"


def _dense(blocks: Sequence[torch.nn.Module], facts: ModelFacts) -> tuple[str, ...]:
    left = {
        name: None
        for block, linears in zip(blocks, facts.linears, strict=True)
        for name, module in block.named_modules()
        if isinstance(module, torch.nn.Linear) and name not in {linear.name for linear in linears}
    }
    return tuple(left)


def _parts(model: PreTrainedModel, blocks: str | None) -> dict[str, int]:
    """Parameters by the module that holds them, one name deeper in the decoder; tied ones once, blocks left out."""
    decoder = "" if blocks is None else blocks.rpartition(".")[0]
    tied = model.all_tied_weights_keys or {}
    parts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        if name in tied or (blocks is not None and name.startswith(f"{blocks}.")):
            continue
        depth = decoder.count(".") + 2 if decoder and name.startswith(f"{decoder}.") else 2
        whole = name.removesuffix(".weight").removesuffix(".bias").split(".")
        parts[".".join(whole[:depth])] += parameter.numel()
    return dict(parts.most_common())


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
        f"{samples * tokens * found.chosen // found.experts:,} where routing is even"
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


def _size(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def run_inspect(
    checkpoint: str,
    console: Console,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    method: Method | None = None,
) -> bool:
    """Print what a checkpoint is; return whether it can be pruned by the method, TAMP by default.

    Raises:
        InputError, FileNotFoundError: it cannot be read.
    """
    found = inspect_checkpoint(resolve(checkpoint), include, exclude, method)
    show(console, found)
    return found.refusal is None and found.method_refusal is None
