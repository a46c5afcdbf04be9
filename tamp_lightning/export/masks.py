"""Which weights of a checkpoint are kept: as a run's masks say, or all whose bits are not zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from tamp_lightning.checkpoint.experts import prunable
from tamp_lightning.checkpoint.facts import block_list
from tamp_lightning.checkpoint.linear import Piece
from tamp_lightning.checkpoint.names import map_keys, stored_as_used, stored_linear
from tamp_lightning.checkpoint.reader import CheckpointReader, TensorInfo, read_header
from tamp_lightning.compat.experts import are_experts
from tamp_lightning.errors import InputError
from tamp_lightning.export.codec import Bits
from tamp_lightning.export.form import BIT_TYPES
from tamp_lightning.export.shards import read_bits
from tamp_lightning.runs.masks import mask_shapes


@dataclass(frozen=True)
class Place:
    """Where a matrix stands in the files."""

    key: str
    shape: tuple[int, ...]
    """[out, in] of the matrix itself."""
    piece: Piece | None = None
    """Where it is in what is stored under its key; None: it is that itself."""

    def of(self, stored: Tensor) -> Tensor:
        """The matrix in what is stored under its key, or in a mask of that shape: a view."""
        return stored if self.piece is None else self.piece.of(stored)


def linear_places(model: PreTrainedModel, reader: CheckpointReader) -> dict[str, Place]:
    """Full name of every linear whose weight is stored as it is used, in plain floating point -> where it is."""
    stored = stored_as_used(model, reader.shard_of)
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    found = {name: stored[f"{name}.weight"] for name in linears if f"{name}.weight" in stored}
    places = {name: Place(key, reader.info(key).shape) for name, key in found.items()}
    return {n: p for n, p in places.items() if reader.info(p.key).dtype in BIT_TYPES and len(p.shape) == 2}


def expert_places(model: PreTrainedModel, reader: CheckpointReader) -> dict[str, Place]:
    """Full name of every matrix of the experts in the decoder blocks -> where it is; empty if there are none.

    Raises:
        InputError: tensors of the checkpoint are missing or left over, or experts are stored in an unknown way.
    """
    if not any(are_experts(module) for module in model.modules()):
        return {}
    path, blocks = block_list(model)
    keys = map_keys(model, reader, path)
    own = [linear for k, block in enumerate(blocks) for linear in prunable(block, k, path, ()) if linear.piece]
    stored = [stored_linear(linear, keys, reader) for linear in own]
    return {linear.full: Place(str(linear.key), linear.shape, linear.stored) for linear in stored}


@dataclass(frozen=True)
class ZeroMasks:
    """Kept is what has a bit that is not zero."""

    def __call__(self, key: str, weight: Bits) -> NDArray[np.bool_]:
        """Bool like the weight's bits."""
        return weight != 0


class RunMasks:
    """The masks of a run folder; those of matrices that it did not prune come from their zeros.

    Args:
        path: masks.safetensors.
        places: full name -> place, in the checkpoint that the masks belong to.
        reader: that checkpoint.

    Raises:
        InputError: the file is damaged, or holds masks of another model.
    """

    def __init__(self, path: Path, places: Mapping[str, Place], reader: CheckpointReader) -> None:
        header = read_header(path)
        shapes = mask_shapes(path)
        self.path = path
        self.masks: dict[str, list[tuple[Place, TensorInfo]]] = {}
        for name, info in header.tensors.items():
            if name not in places:
                raise InputError(f"{path} is of another model: {reader.folder} has no linear {name}")
            shape, own = places[name].shape, shapes.get(name)
            if own != shape or info.dtype != "U8" or info.shape != (-(-shape[0] * shape[1] // 8),):
                raise InputError(f"{path} is of another model: its mask of {name} is for {own}, the weight has {shape}")
            self.masks.setdefault(places[name].key, []).append((places[name], info))

    def __call__(self, key: str, weight: Bits) -> NDArray[np.bool_]:
        """Bool like the weight's bits, [o, c] or those of several experts.

        Raises:
            InputError: a weight that is masked is not zero.
        """
        kept = weight != 0
        masked = torch.from_numpy(kept.copy())
        for place, info in self.masks.get(key, ()):
            place.of(masked).copy_(torch.from_numpy(self._mask(place, info)))
        sign = weight.dtype.type(1 << (8 * weight.itemsize - 1))
        outside = ~masked.numpy() & kept
        if left := int(np.count_nonzero(outside & (weight != sign))):
            raise InputError(
                f"{self.path} does not belong to this checkpoint: {left} weights of {key} that it masks are not zero"
            )
        # -0.0 is a zero with bits of its own, which have to come back
        return masked.numpy() | outside

    def _mask(self, place: Place, info: TensorInfo) -> NDArray[np.bool_]:
        count = place.shape[0] * place.shape[1]
        return np.unpackbits(read_bits(self.path, info), count=count).view(bool).reshape(place.shape)
