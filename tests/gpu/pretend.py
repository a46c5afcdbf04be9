"""Tensors that say they lie on a GPU, and compute on the CPU: what a GPU would refuse, they refuse.

Operands on two devices raise, `.numpy()` raises, and everything that makes the program wait for the device is noted:
`.item()`, `bool(tensor)`, `.tolist()`, copies to the CPU, and operations whose result's size the values decide.
Parameters that are given other data (`parameter.data = ...`) are not followed.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

GPU = torch.device("privateuseone:0")
"""A device of PyTorch's own for backends that are written in Python; it needs no CUDA."""
ATEN = torch.ops.aten
SIZED_BY_VALUES = ("nonzero", "masked_select", "_unique2", "unique_dim", "bincount", "equal", "repeat_interleave")
INDEXING = ("index", "index_put", "index_put_")


class Backend(_DummyBackendModule):
    """Nothing that others in this process would take for a device."""

    def is_available(self) -> bool:
        return False

    def device_count(self) -> int:
        return 0


@cache
def register() -> None:
    _setup_privateuseone_for_python_backend(backend_module=Backend())


class OnGpu(Tensor):
    """Says that it lies on a GPU; its numbers are in `inner`, on the CPU."""

    inner: Tensor
    is_cuda = True

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            dtype=inner.dtype,
            device=GPU,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} of a pretended tensor outside of the mode")

    def tolist(self) -> Any:
        note("tolist")
        return self.inner.tolist()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a tensor of a GPU to numpy: use Tensor.cpu() first")

    def __repr__(self, **_: Any) -> str:
        return f"OnGpu({tuple(self.inner.shape)}, {self.inner.dtype})"


waits: list[tuple[str, str]] = []
"""What waited, and the line of ours that made it wait."""


def note(kind: str) -> None:
    own = [f for f in traceback.extract_stack() if "tamp_lightning/" in f.filename]
    waits.append(
        (kind, f"{own[-1].filename.rpartition('tamp_lightning/')[2]}:{own[-1].lineno}" if own else "elsewhere")
    )


def lies_on_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == GPU.type


class Pretending(TorchDispatchMode):
    """Runs what tensors on the pretended GPU are used for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), func._schema.name.removeprefix("aten::")
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        gpu = any(isinstance(t, OnGpu) for t in tensors)
        if name == "_fused_sdp_choice":
            return 0
        kwargs.pop("pin_memory", None)
        asked, moves = kwargs.get("device"), name in ("_to_copy", "copy_")
        result_on_gpu = lies_on_gpu(asked) if asked is not None else gpu
        if lies_on_gpu(asked):
            kwargs["device"] = "cpu"
        if gpu:
            self._look(name, args, tensors, moves, asked)
        wrappers = {id(t.inner): t for t in tensors if isinstance(t, OnGpu)}
        inner = tree_map(lambda t: t.inner if isinstance(t, OnGpu) else t, (args, kwargs))
        result = func(*inner[0], **inner[1])
        if name == "copy_":
            return args[0]
        if not result_on_gpu:
            return result

        def wrapped(value: Any) -> Any:
            known = wrappers.get(id(value))
            return OnGpu(value) if known is None and isinstance(value, Tensor) else value if known is None else known

        return tree_map(wrapped, result)

    def _look(self, name: str, args: Any, tensors: list[Tensor], moves: bool, asked: Any) -> None:
        if name == "_local_scalar_dense":
            note("item")
        elif moves:
            to_cpu = not isinstance(args[0], OnGpu) if name == "copy_" else asked is not None and not lies_on_gpu(asked)
            if to_cpu and name == "copy_" and len(args) > 2 and args[2]:
                return  # into pinned memory, and nobody waits
            if to_cpu:
                note("copy to the CPU")
            return
        elif name in SIZED_BY_VALUES or (name in INDEXING and _by_mask(args)):
            note(name)
        strangers = [t for t in tensors if not isinstance(t, OnGpu) and t.ndim > 0]
        if strangers:
            shapes = ", ".join(f"{tuple(t.shape)} on {t.device}" for t in tensors)
            raise RuntimeError(f"aten::{name} of tensors on two devices: {shapes}")


def _by_mask(args: Any) -> bool:
    return any(isinstance(t, Tensor) and t.dtype in (torch.bool, torch.uint8) for t in args[1])


def placed(model: nn.Module) -> nn.Module:
    """The same model, its parameters and buffers on the pretended GPU."""
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(OnGpu(value.detach()), requires_grad=False)
        for name, buffer in module._buffers.items():
            module._buffers[name] = buffer if buffer is None else OnGpu(buffer)
    return model


class Accelerator(CPUAccelerator):
    """Lightning's for the CPU, which lets a device of another name pass."""

    def setup_device(self, device: torch.device) -> None:
        pass


@contextmanager
def pretended() -> Iterator[dict[str, Any]]:
    """Arguments of lightning.Trainer for a walk on the pretended GPU, inside of which it can be used."""
    register()
    waits.clear()
    torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor(..., device=...) is made where no mode sees it
    try:
        with Pretending():
            yield {"strategy": SingleDeviceStrategy(device=GPU, accelerator=Accelerator()), "devices": 1}
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
