"""What an NVIDIA GPU's sparse units are asked to do, through torch's undocumented calls of cuSPARSELt: here alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from tamp_lightning.errors import InputError

ROUNDS = 10
"""Timed calls of each product, after as many that are not."""


class Units(Protocol):
    """2:4 products of bfloat16 weights."""

    name: str
    """Device and versions that an algorithm was found for."""

    def compress(self, weight: Tensor) -> Tensor:
        """The weight [o, c], 2 of every 4 columns zero, as the units want it; o and c are multiples of 32."""

    def search(self, packed: Tensor, inputs: Tensor) -> int:
        """The fastest algorithm for this weight and inputs [n, c], n a multiple of 8."""

    def multiply(self, packed: Tensor, inputs: Tensor, bias: Tensor | None, algorithm: int) -> Tensor:
        """inputs [n, c] times the weight, plus bias [o] -> [n, o]."""

    def seconds(self, call: Callable[[], Tensor]) -> float:
        """Median time of a call."""


class CuSparseLt:
    """The real ones.

    Raises:
        InputError: there is no CUDA device, or its torch has no cuSPARSELt.
    """

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise InputError(
                "runtime is 'semi_structured', which needs an NVIDIA GPU; this machine has none: leave it out"
            )
        if not torch.backends.cusparselt.is_available():
            raise InputError(
                "runtime is 'semi_structured', which needs a torch with cuSPARSELt: install one for CUDA 12+"
            )
        version = torch.backends.cusparselt.version()
        self.name = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, cuSPARSELt {version}"

    def compress(self, weight: Tensor) -> Tensor:
        """See `Units.compress`."""
        return torch._cslt_compress(weight)

    def search(self, packed: Tensor, inputs: Tensor) -> int:
        """See `Units.search`; the default algorithm is slow on Hopper (pytorch issue 153825)."""
        return int(torch._cslt_sparse_mm_search(packed, inputs.t()))

    def multiply(self, packed: Tensor, inputs: Tensor, bias: Tensor | None, algorithm: int) -> Tensor:
        """See `Units.multiply`."""
        return torch._cslt_sparse_mm(packed, inputs.t(), bias=bias, alg_id=algorithm).t()

    def seconds(self, call: Callable[[], Tensor]) -> float:
        """See `Units.seconds`."""
        times = []
        for turn in range(2 * ROUNDS):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            if turn >= ROUNDS:
                times.append(start.elapsed_time(end) / 1000)
        return statistics.median(times)
