"""Weights of the bitmask form on their way into a model: expanded before anything else is done with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from tamp_lightning.compat.loading import ConversionOps, WeightConverter
from tamp_lightning.errors import InputError
from tamp_lightning.export.codec import BITMASK, kept_of
from tamp_lightning.export.form import CODES, DENSE_HEADER, FLOATS, SCALES
from tamp_lightning.export.values import Stored
from tamp_lightning.kernels.form import Bitmask

PARTS = tuple(f"{ending}$" for ending in (*CODES.values(), SCALES))
"""Patterns of keys that stand beside those of weights."""
_INTEGER_NAMES = {torch.int8: "I8", torch.uint8: "U8"}
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Beside(NamedTuple):
    """What belongs to the values of an encoded weight."""

    shape: tuple[int, ...]
    """Of the weight."""
    kind: tuple[str, Tensor] | None
    """A key of `CODES` and the code, uint8 [bytes]; None = no value is left out."""
    scales: Tensor | None


class Parts:
    """Codes and scales in the files of a folder, by the key of their weight; copies of a conversion share them.

    Args:
        files: weight files of the folder.
        own: the model's tensors by full name, which need no numbers.

    Raises:
        InputError: a file does not say what it was made of.
    """

    def __init__(self, files: Iterable[Path], own: Mapping[str, Tensor]) -> None:
        self.own = own
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Any] = {}
        for path in files:
            file = safe_open(path, "pt")
            self._files |= dict.fromkeys(file.keys(), file)
            self._shapes |= _dense_shapes(path, file.metadata() or {})

    def __deepcopy__(self, memo: dict[int, Any]) -> Parts:
        return self

    def beside(self, key: str) -> Beside | None:
        """What belongs to the values under a key; None if it is stored as it was."""
        kind = next((kind for kind, ending in CODES.items() if key + ending in self._files), None)
        code = None if kind is None else (kind, self._read(key + CODES[kind]))
        scales = self._read(key + SCALES) if key + SCALES in self._files else None
        if code is None and scales is None:
            return None
        if key not in self._shapes:
            raise InputError(f"{key} is not in the {DENSE_HEADER}: export the checkpoint again")
        return Beside(self._shapes[key], code, scales)

    def _read(self, key: str) -> Tensor:
        tensor: Tensor = self._files[key].get_tensor(key)
        return tensor


def _dense_shapes(path: Path, metadata: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    try:
        tensors = json.loads(metadata[DENSE_HEADER])
        return {key: tuple(tensor["shape"]) for key, tensor in tensors.items() if key != "__metadata__"}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{path} has no valid {DENSE_HEADER}: export the checkpoint again") from None


class Kept(dict[str, Bitmask]):
    """Weights by full name of their parameter that stay compressed; copies of a conversion share it.

    Args:
        names: parameters whose weights stay compressed, if they are encoded.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.names = frozenset(names)

    def __deepcopy__(self, memo: dict[int, Any]) -> Kept:
        return self


class Expanding(WeightConverter):
    """A conversion of the tensors of the dense file: encoded ones are expanded on the CPU when they are needed.

    Attributes:
        parts: what stands beside the values.
        kept: where weights go that stay compressed, None = none does; the model then gets nothing.
        dtype: what tensors have to become; None = that of the model's own.
    """

    __slots__ = ("dtype", "kept", "parts")

    parts: Parts
    kept: Kept | None
    dtype: torch.dtype | None

    @classmethod
    def of(cls, own: WeightConverter, parts: Parts) -> Expanding:
        """The same conversion as one of a model's own."""
        sources, targets = own._original_source_patterns, own._original_target_patterns
        found = cls(list(sources), list(targets), own.operations, force_cpu=True)
        found.scope_prefix, found.base_model_prefix = own.scope_prefix, own.base_model_prefix
        found.parts, found.kept, found.dtype = parts, None, None
        return found

    @classmethod
    def of_all(cls, parts: Parts, kept: Kept | None) -> Expanding:
        """One that takes every tensor which no other takes, whatever its name, and puts it into the model as it is."""
        found = cls([""], [""], [_AsItIs()], force_cpu=kept is None)
        found.parts, found.kept, found.dtype = parts, kept, None
        return found

    def add_tensor(self, target_key: str, source_key: str, source_pattern: str, future: Any) -> None:
        """Take a tensor as it is stored; what the operations get of it is made when they are called."""
        ready: Any = partial(self._ready, target_key, source_key, future)  # called like those of loading in one thread
        super().add_tensor(target_key, source_key, source_pattern, ready)

    def _ready(self, target: str, key: str, future: Future[Tensor] | Callable[[], Tensor]) -> Tensor:
        values = future.result() if isinstance(future, Future) else future()
        own, beside = self.parts.own[target], self.parts.beside(key)
        dtype = self.dtype or own.dtype
        if beside is None:
            return values.to(dtype) if values.is_floating_point() else values
        try:
            if self.kept is not None and target in self.kept.names:
                if beside.shape != own.shape:
                    raise InputError(f"it has shape {list(beside.shape)}, but the model needs {list(own.shape)}")
                self.kept[target] = compressed(values, beside, dtype)
                return values.new_empty(0, dtype=dtype)
            return expand(values, beside, dtype).to(values.device)
        except InputError as error:
            raise InputError(f"{key}: {error}") from None


class _AsItIs(ConversionOps):
    """One tensor -> itself, under the full name of its parameter."""

    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        *,
        full_layer_name: str = "",
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The tensor by its name."""
        return {full_layer_name: next(iter(input_dict.values()))}


def expand(values: Tensor, beside: Beside, dtype: torch.dtype) -> Tensor:
    """A weight in its shape, on the CPU.

    Args:
        values: its kept values or whole numbers.
        beside: what belongs to them.
        dtype: of the weight.

    Raises:
        InputError: values and the rest do not belong together.
    """
    wide = values.dtype if beside.scales is None else dtype
    parts = Stored(
        _bits(values),
        _INTEGER_NAMES.get(values.dtype, ""),
        beside.kind and beside.kind[0],
        beside.kind and beside.kind[1].cpu().numpy(),
        None if beside.scales is None else _bits(beside.scales),
        beside.shape,
        next(name for name, known in FLOATS.items() if known == wide),
    )
    return parts.restore().to(dtype)


def compressed(values: Tensor, beside: Beside, dtype: torch.dtype) -> Bitmask:
    """The weight [o, c] as kernels take it, on the device of its values; one without zeros gets a mask of ones.

    Args:
        values: its kept values or whole numbers.
        beside: what belongs to them.
        dtype: of the weight.

    Raises:
        InputError: values, code and scales do not belong together.
    """
    o, c = beside.shape
    scales, wide = beside.scales, None
    if scales is None:
        values = values.to(dtype)
    else:
        values, scales, wide = values.flatten(), scales.to(values.device), dtype
    if beside.kind is None:
        return Bitmask.of_mask(values, torch.ones(o, c, dtype=torch.bool, device=values.device), scales, wide)
    name, code = beside.kind
    if name == BITMASK:
        return Bitmask.of_packed(values, code.to(values.device), (o, c), scales, wide)
    kept = torch.from_numpy(kept_of(name, code.cpu().numpy(), o * c))
    return Bitmask.of_mask(values, kept.view(o, c).to(values.device), scales, wide)


def _bits(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().view(_INTEGERS[tensor.element_size()]).numpy()
