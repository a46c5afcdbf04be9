"""What a run was made with: versions, hardware, memory."""

from __future__ import annotations

import platform
import resource
import sys
from importlib.metadata import version
from typing import Any

import torch

PACKAGES = ("tamp-lightning", "torch", "lightning", "transformers", "torchmetrics", "peft", "safetensors")


def environment() -> dict[str, Any]:
    """Versions of what decides the result, and the machine's kind."""
    return {
        "packages": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def compute_dtype(name: str, device: torch.device | None = None) -> torch.dtype | None:
    """The dtype to compute in; None = the checkpoint's own.

    "auto" is the checkpoint's own, but float32 on a CPU whose cores have no bfloat16 arithmetic: there emulation
    would make every product several times slower.
    """
    if name != "auto":
        return getattr(torch, name)
    on_cpu = device is None or device.type == "cpu"
    return torch.float32 if on_cpu and not _cpu_has_bfloat16() else None


def _cpu_has_bfloat16() -> bool:
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(k, False) for k in ("amx_bf16", "avx512_bf16", "bf16"))


def peak_memory_bytes() -> dict[str, int]:
    """Largest resident set of this process so far, and what CUDA's allocator held at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"ram": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated()
    return peak
