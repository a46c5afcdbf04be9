"""The device is a fixture: what is asked of a GPU is asked of the CPU too, with tensors laid out in another order."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
)
Place = Callable[[Tensor], Tensor]
"""Where an argument lies."""


@pytest.fixture(params=["cpu", CUDA])
def device(request) -> torch.device:
    return torch.device(request.param)


@pytest.fixture
def accelerator(device) -> dict[str, Any]:
    """Arguments of lightning.Trainer."""
    return {"accelerator": "gpu" if device.type == "cuda" else "cpu", "devices": 1}


@pytest.fixture
def there(device) -> Place:
    """Brings a tensor to the device; on the CPU it gets the layout of its transpose, so that sums run otherwise."""

    def place(value: Tensor) -> Tensor:
        if device.type == "cuda":
            return value.to(device)
        return value.mT.contiguous().mT if value.ndim > 1 else value.clone()

    return place


def share_of_differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Of the bits of all masks; both by name."""
    assert first.keys() == second.keys()
    assert all(mask.shape == second[name].shape for name, mask in first.items())
    off = sum(int((mask != second[name]).sum()) for name, mask in first.items())
    return off / sum(mask.numel() for mask in first.values())
