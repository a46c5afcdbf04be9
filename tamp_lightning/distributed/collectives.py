"""What processes tell each other; with one process nothing is sent.

Objects that travel are pickled by torch.distributed: between processes of one run, never to or from a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from tamp_lightning.distributed.partition import BatchPartition
from tamp_lightning.distributed.sums import OrderedSum
from tamp_lightning.errors import InputError

Value = TypeVar("Value")


def all_gather(partition: BatchPartition, value: Value) -> list[Value]:
    """The value of every process, in their order."""
    if partition.processes == 1:
        return [value]
    values: list[Value | None] = [None] * partition.processes
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def broadcast(partition: BatchPartition, value: Value) -> Value:
    """The value of the first process."""
    return value if partition.processes == 1 else _from_first(value)


def broadcast_outside(value: Value) -> Value:
    """The value of the first process, where no batches are shared; of this one, if it is alone."""
    return _from_first(value) if dist.is_available() and dist.is_initialized() else value


def _from_first(value: Value) -> Value:
    values = [value]
    dist.broadcast_object_list(values, 0)
    return values[0]


def gather_by_id(partition: BatchPartition, rows: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Rows of all processes' samples, by sample id; rows are of one shape and lie on the CPU."""
    if partition.processes == 1:
        return dict(rows)
    # stacked, for a row of a larger tensor would travel with all of it
    packed = (list(rows), torch.stack(list(rows.values()))) if rows else ([], torch.empty(0))
    return {i: row for ids, values in all_gather(partition, packed) for i, row in zip(ids, values, strict=True)}


def check_same(partition: BatchPartition, linears: Iterable[str]) -> None:
    """Refuse linears that only some processes have statistics of.

    Raises:
        InputError: in every process, naming one.
    """
    names = all_gather(partition, list(linears))
    if any(other != names[0] for other in names):
        odd = sorted(set().union(*names) - set(names[0]).intersection(*names)) or names[0]
        raise InputError(f"{odd[0]} is called by some samples and not by others: set devices: 1, or exclude it")


def reduce_to_first(partition: BatchPartition, sums: Iterable[OrderedSum]) -> None:
    """Bring the parts of all sums to the first process; the others are left with none.

    Args:
        partition: of this process.
        sums: of float32, in the same order in every process; a process may have no part of one.
    """
    if partition.processes == 1:
        return
    for own in sums:
        own.close()
        spans = all_gather(partition, [(first, end, tuple(value.shape)) for first, end, value in own.parts])
        if partition.is_first:
            _receive(own, spans)
        else:
            for _, _, value in own.parts:
                dist.send(value, 0)
            own.parts.clear()


def _receive(own: OrderedSum, spans: list[list[tuple[int, int, tuple[int, ...]]]]) -> None:
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    for rank, theirs in enumerate(spans[1:], start=1):
        for first, end, shape in theirs:
            value = torch.empty(shape, device=device)
            dist.recv(value, rank)
            own.append(first, end, value)


def mean_over(partition: BatchPartition, tensors: Iterable[Tensor], count: int) -> None:
    """Put the sum over all processes, divided by `count`, in the place of each tensor; one process changes nothing.

    The bits are the same in every process, and depend on how many there are.
    """
    if partition.processes > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor.div_(count)


def broadcast_bits(partition: BatchPartition, tensors: Iterable[Tensor]) -> None:
    """Overwrite contiguous tensors of any dtype with the bits of the first process."""
    if partition.processes > 1:
        for tensor in tensors:
            dist.broadcast(tensor.view(torch.uint8), 0)
