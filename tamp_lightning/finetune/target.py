"""The checkpoint that is trained: where its tensors are on disk, and how the trained ones get back there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tamp_lightning.checkpoint.facts import ModelFacts
from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.checkpoint.names import KeyMap
from tamp_lightning.checkpoint.opened import Checkpoint
from tamp_lightning.checkpoint.reader import FLOATS, CheckpointReader
from tamp_lightning.checkpoint.writer import ShardWriter
from tamp_lightning.errors import InputError


@dataclass(frozen=True)
class Target:
    """A checkpoint with its facts; no weight is in memory."""

    folder: Path
    reader: CheckpointReader
    model: PreTrainedModel
    """On the meta device."""
    facts: ModelFacts
    keys: KeyMap

    @classmethod
    def find(cls, folder: Path) -> Target:
        """Read the headers of a checkpoint.

        Raises:
            InputError: it is no checkpoint, damaged, or of a kind that cannot be pruned.
        """
        opened = Checkpoint.open(folder)
        return cls(folder, opened.reader, opened.model, opened.facts, opened.keys)

    @cached_property
    def linears(self) -> dict[str, Linear]:
        """Linears of the decoder blocks and matrices of their experts by full name, each with its key on disk."""
        return {linear.full: linear for linear in self.facts.all_linears if linear.key is not None}

    @property
    def modules(self) -> list[str]:
        """Full names of those that are modules of their own, which the matrices of experts are not."""
        return [name for name, linear in self.linears.items() if linear.piece is None]

    def stored_shape(self, name: str) -> tuple[int, ...] | None:
        """Shape [out, in] of a linear's weight, in the blocks or outside; None if it is not stored as it is used."""
        if name in self.linears:
            return self.linears[name].shape
        key = self.keys.outside.get(f"{name}.weight")
        return None if key is None else self.reader.info(key).shape

    def weight(self, name: str) -> Tensor:
        """The weight [out, in] of a linear that is stored as it is used, as on disk."""
        linear = self.linears.get(name)
        key = self.keys.outside[f"{name}.weight"] if linear is None else str(linear.key)
        value = self.reader.read([key])[key]
        return value if linear is None else linear.stored_part(value)

    def parameter_masks(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Full name of a parameter -> mask of its shape, from masks [out, in] by linear: experts share a parameter."""
        found: dict[str, Tensor] = {}
        for name, mask in masks.items():
            linear = self.linears.get(name)
            if linear is None or linear.piece is None:
                found[f"{name}.weight"] = mask
                continue
            parameter = self._parameter(linear)
            if parameter not in found:
                found[parameter] = torch.ones(self.model.get_parameter(parameter).shape, dtype=torch.bool)
            linear.part(found[parameter]).copy_(mask)
        return found

    def stored(self, model: PreTrainedModel, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Key on disk -> tensor of its shape, from values of parameters of `model` by full name.

        Raises:
            InputError: one cannot be written back.
        """
        stacked: dict[str, list[Linear]] = {}
        for linear in self.linears.values():
            if linear.piece is not None:
                stacked.setdefault(self._parameter(linear), []).append(linear)
        plain = [name for name in weights if name not in stacked]
        found = {key: weights[name] for name, keys in self.keys_of(model, plain).items() for key in keys}
        for name in weights.keys() & stacked.keys():
            for linear in stacked[name]:
                key, part = str(linear.key), linear.part(weights[name])
                if linear.stored is None:
                    found[key] = part
                    continue
                if key not in found:
                    found[key] = torch.empty(self.reader.info(key).shape, dtype=part.dtype)
                linear.stored_part(found[key]).copy_(part)
        return found

    def _parameter(self, linear: Linear) -> str:
        return f"{self.facts.blocks}.{linear.block}.{linear.parameter}"

    def key_of(self, parameter: str) -> str:
        """Key on disk of a parameter.

        Raises:
            InputError: it is not stored as one tensor of its own.
        """
        head, _, rest = parameter.removeprefix(f"{self.facts.blocks}.").partition(".")
        if parameter.startswith(f"{self.facts.blocks}.") and rest in self.keys.blocks[int(head)]:
            return self.keys.blocks[int(head)][rest]
        if parameter.startswith(f"{self.facts.blocks}."):
            raise InputError(f"{parameter} is not stored as it is used, so it cannot be trained: use mode: lora")
        if parameter not in self.keys.outside:
            raise InputError(f"{parameter} is not stored as it is used, so it cannot be trained: use train: blocks")
        return self.keys.outside[parameter]

    def keys_of(self, model: PreTrainedModel, names: Iterable[str]) -> dict[str, list[str]]:
        """Keys on disk of each named parameter of `model`; a tied one may be stored under several.

        Raises:
            InputError: one is not stored as one tensor of its own.
        """
        aliases: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            aliases.setdefault(id(parameter), []).append(name)
        known = dict(model.named_parameters())
        stored = {name: [a for a in aliases[id(known[name])] if a in self.keys.outside] or [name] for name in names}
        return {name: [self.key_of(alias) for alias in found] for name, found in stored.items()}

    def write(self, out: Path, trained: Mapping[str, Tensor]) -> dict[str, str]:
        """Write a copy of the checkpoint with `trained` (key -> tensor) in the dtypes on disk; sha256 by file.

        Every other tensor keeps its bytes.
        """
        writer = ShardWriter(self.reader, out, {0: list(trained)})
        dtypes = {key: FLOATS[self.reader.info(key).dtype] for key in trained}
        writer.put(0, {key: value.detach().cpu().to(dtypes[key]).contiguous() for key, value in trained.items()})
        return writer.finish()
