"""What a prune run takes: seconds, memory, disk and traffic, from a checkpoint's shapes and a machine's rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from torch import nn
from transformers import PreTrainedModel

from tamp_lightning.checkpoint.facts import ModelFacts
from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.errors import InputError
from tamp_lightning.methods.method import Method
from tamp_lightning.tasks.inspect_experts import expert_facts

OVERHEAD = 3.5
"""Blocks in memory while one is pruned and written: itself, its pruned copy, what is to be written, and masks."""
TRAINED = 16
"""Bytes a weight while it is reconstructed: float32 copy, gradient, two moments; an upper bound, halves are smaller.
Beside them stand what it is in the dense block and in the best state, as the block computes."""
REFITTED = 24
"""Bytes a weight of the largest linear while it is refitted: weights, residuals, directions and products in float32."""
BACK_AND_FORTH = 4
"""Passes of a batch over a block that a step for attention and one for the MLP cost together, of the dense block, the
pruned one and back through what is trained; without looking at the batches held out."""
RANKING = 16
"""Bytes a weight of the largest linear while its scores are ranked."""
LIBRARIES = 0.35 * 2**30
"""Bytes of Python and what it imports."""
STATE, MASK = 2, 1
"""Bytes of a number of a hidden state, and of a weight's place in a mask."""


@dataclass(frozen=True)
class Machine:
    """What a run is planned for. The defaults are round numbers of an H100 beside a local disk, and not measured."""

    processes: int = 1
    """One a device."""
    tflops: float = 400.0
    """Of forward passes of one process, in 10^12 operations a second."""
    disk_gb: float = 2.0
    """GB a second that a process reads from its disk, or the first one writes."""
    bus_gb: float = 20.0
    """GB a second between memory and device; 0 where there is none, on a CPU."""
    wire_gb: float = 10.0
    """GB a second between processes."""
    solve_ns: float = 1.0
    """Nanoseconds in which a weight is scored, ranked and masked, by the first process."""
    samples: int = 128
    """Calibration samples."""
    tokens: int = 2900
    """Of a sample."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0 and not (name in ("bus_gb", "solve_ns") and value == 0):
                raise InputError(f"machine.{name} is {value}; it has to be above 0")


@dataclass(frozen=True)
class Shape:
    """What of a model decides how long it takes and what it holds."""

    blocks: int
    hidden: int
    weights: int
    """Parameters of all blocks."""
    active: int
    """Of those, how many a token passes: of a mixture, the experts that it is sent to."""
    largest_block: int
    """Parameters."""
    largest_linear: int
    """Weights."""
    widest: int
    """Inputs of the widest linear."""
    outside: int
    """Parameters of embeddings and towers."""
    head: int = 0
    """Parameters of the head, unless it is the embeddings: pruning never runs it."""
    width: int = 2
    """Bytes of a parameter."""
    kept: int = 0
    """Numbers a token that the steps back through a block need: what its linears read and put out, of experts those
    that a token is sent to; in the block with most."""


@dataclass(frozen=True)
class Forecast:
    """What is to be expected of each process; times are lower bounds, for nothing is taken to overlap or to wait."""

    seconds: dict[str, float]
    """By walk."""
    memory: dict[str, float]
    """Bytes that each process holds, by part."""
    disk: dict[str, float]
    """Bytes, by part."""
    traffic: dict[str, float]
    """Bytes over disk, bus and wire, by part, of one process."""


def shape_of(model: PreTrainedModel, facts: ModelFacts) -> Shape:
    """The shape of a model, with weights or without."""
    blocks = list(model.get_submodule(facts.blocks).children())
    sizes = [sum(p.numel() for p in block.parameters()) for block in blocks]
    linears = [linear.shape for linear in facts.all_linears]
    total = sum(p.numel() for p in model.parameters())  # a tied head once
    head, inputs = model.get_output_embeddings(), model.get_input_embeddings()
    own_head = head.weight.numel() if head is not None and not _tied(model, head, inputs) else 0
    return Shape(
        blocks=len(blocks),
        hidden=model.config.get_text_config().hidden_size,
        weights=sum(sizes),
        active=sum(_active(model, block) for block in blocks),
        largest_block=max(sizes),
        largest_linear=max((out * width for out, width in linears), default=0),
        widest=max((width for _, width in linears), default=0),
        outside=total - sum(sizes) - own_head,
        head=own_head,
        width=max(p.element_size() for p in model.parameters()),
        kept=max(_kept(model, block, own) for block, own in zip(blocks, facts.linears, strict=True)),
    )


def _tied(model: PreTrainedModel, head: nn.Module, inputs: nn.Module) -> bool:
    return head.weight is inputs.weight or bool(model.all_tied_weights_keys)


def _active(model: PreTrainedModel, block: nn.Module) -> int:
    """Parameters of a block that a token passes."""
    every, experts = sum(p.numel() for p in block.parameters()), expert_facts(model, [block])
    return every if experts is None else every - experts.weights + experts.active


def _kept(model: PreTrainedModel, block: nn.Module, linears: Sequence[Linear]) -> int:
    """What the linears that a token passes read and put out, in numbers."""
    experts = expert_facts(model, [block])
    share = experts.active / experts.weights if experts else 1.0
    return round(sum(sum(linear.shape) * (1.0 if linear.piece is None else share) for linear in linears))


def forecast(shape: Shape, machine: Machine, method: Method) -> Forecast:
    """Time, memory, disk and traffic of a run of a method."""
    tokens = machine.samples * machine.tokens
    state = tokens * shape.hidden * STATE / machine.processes
    weights, total = shape.weights * shape.width, (shape.weights + shape.outside + shape.head) * shape.width
    passes = {"measure": len(method.measure_stages), "prune": 1 + len(method.prune_stages)}
    own = _operations(shape, machine) / machine.processes / (machine.tflops * 1e12)
    moved = (weights + 2 * state * shape.blocks) / (machine.bus_gb * 1e9) if machine.bus_gb else 0.0
    reading = weights / (machine.disk_gb * 1e9)
    walk = {name: count * own + (moved + reading if count else 0.0) for name, count in passes.items()}
    sent = weights + shape.weights * MASK if machine.processes > 1 else 0.0
    gram = 4.0 * shape.widest**2 if method.statistics == "hessian" else 0.0
    others = method.correction.on + (method.blends and method.tokens != "all")
    steps, twin = method.reconstruct.on, method.follows_dense
    trained = BACK_AND_FORTH * method.reconstruct.steps * _operations(shape, machine) / machine.samples
    seconds = {
        **walk,
        "solve": shape.weights * machine.solve_ns / 1e9,
        "reconstruct, a sample a step": trained / (machine.tflops * 1e12),
        "send": sent / (machine.wire_gb * 1e9),
        "write": total / (machine.disk_gb * 1e9),
    }
    memory = {
        "embeddings and towers": shape.outside * shape.width,
        "blocks": (OVERHEAD + (machine.bus_gb > 0)) * shape.largest_block * shape.width,  # on a GPU one is read ahead
        "ranking": RANKING * shape.largest_linear,
        "second moments": gram * (1 + others),
        "refit": REFITTED * shape.largest_linear + gram if method.refit.on else 0.0,
        "reconstruction": float((TRAINED + 2 * shape.width) * shape.largest_block) if steps else 0.0,
        "its activations, of a sample": float(shape.kept * shape.width * machine.tokens) if steps else 0.0,
        "libraries": LIBRARIES,
        "activation cache": state * (1 + twin + (twin and steps)),
    }
    walks = sum(count > 0 for count in passes.values())
    traffic = {
        "read from disk": weights * walks + shape.outside * shape.width,
        "written by the first": total,
        "over the bus": (weights + 2 * state * shape.blocks) * walks if machine.bus_gb else 0.0,
        "sent by the first": sent,
    }
    return Forecast(seconds, memory, {"source": total, "output": total}, traffic)


def _operations(shape: Shape, machine: Machine) -> float:
    """Floating point operations of one pass of all samples over all blocks; attention is causal."""
    per_token = 2 * shape.active + 2 * shape.blocks * machine.tokens * shape.hidden
    return float(machine.samples * machine.tokens * per_token)
