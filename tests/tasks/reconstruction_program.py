"""Reconstructs a tiny model in memory in two processes; run by test_processes as a program."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor

from tamp_lightning.cli.run import quieten
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.options import Reconstruct
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.stream import MemoryStream

from ..conftest import Toy, calibration, toys
from ..stream.conftest import make_llava

EVEN = [Toy(ids) for ids in torch.randint(1, 80, (16, 18), generator=torch.Generator().manual_seed(0))]
"""Samples of one length, so that a batch of two has the mean gradient of both."""
PAIRS = [sample for first in range(8) for sample in (first, first + 8)]
"""What two processes have at the same time: each has eight batches, and the last of both are held out."""
STEPS = 14
CASES = {"even": (EVEN, STEPS), "again": (EVEN, STEPS), "uneven": (toys("tptpt"), 7), "pruned": (toys("tptpt"), 0)}
"""Samples and steps. Of five batches, one process has two and the other three, the last of them held out."""


def method(steps: int) -> Method:
    return Method(tokens="all", allocation="uniform", reconstruct=Reconstruct(steps, 1e-3, norms=True))


def weights(
    samples: Sequence[Toy], steps: int, size: int, order: list[int] | None, processes: int
) -> dict[str, Tensor]:
    """What a run leaves in the decoder."""
    model = make_llava()
    trainer = {"accelerator": "cpu", "devices": processes}
    data = calibration(samples, size, order)
    prune_stream(MemoryStream(model), data, method(steps), progress=False, **trainer)
    return {name: value for name, value in model.state_dict().items() if "language_model" in name}


def alone(samples: Sequence[Toy], steps: int) -> dict[str, Tensor]:
    """The same in one process, with the batches of both at a time."""
    return weights(samples, steps, 2, PAIRS, 1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    quieten()
    for name, (samples, steps) in CASES.items():
        torch.save(weights(samples, steps, 1, None, 2), Path(sys.argv[1], f"{name}-{rank_zero_only.rank}.pt"))
