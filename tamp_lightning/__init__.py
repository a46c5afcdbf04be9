"""Prune the weights of multimodal LLMs after training, the PyTorch Lightning way."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tamp_lightning.export.register import register

if TYPE_CHECKING:
    from tamp_lightning.api import PruneResult, prune
    from tamp_lightning.methods.method import Method

__all__ = ["Method", "PruneResult", "prune"]

_HOMES = {
    "Method": "tamp_lightning.methods.method",
    "PruneResult": "tamp_lightning.api",
    "prune": "tamp_lightning.api",
}


register()


def __getattr__(name: str) -> Any:
    """Import what is asked for only now: the command line's `--help` should not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tamp_lightning' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
