"""Which weights of a checkpoint are kept: as a run's masks say, or all whose bits are not zero."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from tamp_lightning.checkpoint.facts import find_facts
from tamp_lightning.checkpoint.names import stored_as_used
from tamp_lightning.checkpoint.reader import CheckpointReader, TensorInfo, read_header
from tamp_lightning.errors import InputError
from tamp_lightning.export.codec import Bits
from tamp_lightning.export.form import BIT_TYPES
from tamp_lightning.export.shards import read_bits
from tamp_lightning.runs.masks import mask_shapes


def linear_weights(model: PreTrainedModel, reader: CheckpointReader) -> dict[str, str]:
    """Full name of every linear whose weight is stored as it is used, in plain floating point -> its key on disk."""
    stored = stored_as_used(model, reader.shard_of)
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    found = {name: stored[f"{name}.weight"] for name in linears if f"{name}.weight" in stored}
    infos = {name: reader.info(key) for name, key in found.items()}
    return {n: key for n, key in found.items() if infos[n].dtype in BIT_TYPES and len(infos[n].shape) == 2}


def block_weights(model: PreTrainedModel, linears: dict[str, str]) -> frozenset[str]:
    """Keys on disk of those `linears` that stand in the decoder blocks of a model."""
    blocks = find_facts(model).blocks
    return frozenset(key for name, key in linears.items() if name.startswith(f"{blocks}."))


@dataclass(frozen=True)
class ZeroMasks:
    """Kept is what has a bit that is not zero."""

    def __call__(self, key: str, weight: Bits) -> NDArray[np.bool_]:
        """Bool [o, c] of the weight's bits [o, c]."""
        return weight != 0


class RunMasks:
    """The masks of a run folder; those of linears that it did not prune come from their zeros.

    Args:
        path: masks.safetensors.
        linears: full linear name -> key on disk, of the checkpoint that the masks belong to.
        reader: that checkpoint.

    Raises:
        InputError: the file is damaged, or holds masks of another model.
    """

    def __init__(self, path: Path, linears: dict[str, str], reader: CheckpointReader) -> None:
        header = read_header(path)
        shapes = mask_shapes(path)
        self.path = path
        self.masks: dict[str, tuple[str, TensorInfo]] = {}
        for name, info in header.tensors.items():
            if name not in linears:
                raise InputError(f"{path} is of another model: {reader.folder} has no linear {name}")
            shape, own = reader.info(linears[name]).shape, shapes.get(name)
            if own != shape or info.dtype != "U8" or info.shape != (-(-shape[0] * shape[1] // 8),):
                raise InputError(f"{path} is of another model: its mask of {name} is for {own}, the weight has {shape}")
            self.masks[linears[name]] = (name, info)

    def __call__(self, key: str, weight: Bits) -> NDArray[np.bool_]:
        """Bool [o, c] of the weight's bits [o, c].

        Raises:
            InputError: a weight that is masked is not zero.
        """
        if key not in self.masks:
            return weight != 0
        name, info = self.masks[key]
        kept = np.unpackbits(read_bits(self.path, info), count=weight.size).view(bool).reshape(weight.shape)
        sign = weight.dtype.type(1 << (8 * weight.itemsize - 1))
        outside = ~kept & (weight != 0)
        if left := int(np.count_nonzero(outside & (weight != sign))):
            raise InputError(
                f"{self.path} does not belong to this checkpoint: {left} weights of {name} that it masks are not zero"
            )
        # -0.0 is a zero with bits of its own, which have to come back
        return kept | outside
