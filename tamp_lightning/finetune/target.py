"""The checkpoint that is trained: where its tensors are on disk, and how the trained ones get back there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from tamp_lightning.checkpoint.facts import ModelFacts
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

    @property
    def linears(self) -> dict[str, str]:
        """Full name of every linear of the decoder blocks -> key on disk of its weight."""
        return {linear.full: linear.key for linear in self.facts.all_linears if linear.key is not None}

    def weight_key(self, linear: str) -> str | None:
        """Key on disk of a linear's weight, in the blocks or outside; None if it is not stored as it is used."""
        return self.linears.get(linear) or self.keys.outside.get(f"{linear}.weight")

    def key_of(self, parameter: str) -> str:
        """Key on disk of a parameter.

        Raises:
            InputError: it is not stored as one tensor of its own.
        """
        head, _, rest = parameter.removeprefix(f"{self.facts.blocks}.").partition(".")
        if parameter.startswith(f"{self.facts.blocks}."):
            return self.keys.blocks[int(head)][rest]
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
