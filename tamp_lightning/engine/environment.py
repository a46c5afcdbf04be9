"""What a run was made with: versions, hardware, memory."""

from __future__ import annotations

import platform
import resource
import sys
from importlib.metadata import version
from typing import Any

import torch

PACKAGES = ("tamp-lightning", "torch", "lightning", "transformers", "torchmetrics", "safetensors")


def environment() -> dict[str, Any]:
    """Versions of what decides the result, and the machine's kind."""
    return {
        "packages": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def peak_memory_bytes() -> dict[str, int]:
    """Largest resident set of this process so far, and what CUDA's allocator held at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"ram": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated()
    return peak
