"""Pruned weights of awkward shapes."""

import warnings

import pytest
import torch

from tamp_lightning.kernels.build import cpu_library

SHAPES = [(1, 1), (3, 5), (7, 64), (33, 100), (64, 1023), (5, 2050), (130, 1024)]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def pruned(rows: int, columns: int, density: float, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    return (weight * (torch.rand(rows, columns, generator=generator) < density)).to(dtype)


@pytest.fixture(scope="session")
def instructions() -> list[int]:
    """The instruction sets of the kernel that this processor has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = cpu_library()
    if library is None:
        pytest.skip("there is no C++ compiler")
    return list(range(library.tamp_best_set() + 1))
