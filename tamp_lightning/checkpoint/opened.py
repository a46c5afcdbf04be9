"""A checkpoint on disk, opened: its headers read, its model built without weights, its linears found and located."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from tamp_lightning.checkpoint.facts import ModelFacts, find_facts
from tamp_lightning.checkpoint.names import KeyMap, map_keys
from tamp_lightning.checkpoint.reader import CheckpointReader
from tamp_lightning.checkpoint.skeleton import build_skeleton
from tamp_lightning.methods.selection import ALL, Selection


@dataclass(frozen=True)
class Checkpoint:
    """What the headers of a checkpoint say; no weight is in memory."""

    reader: CheckpointReader
    model: PreTrainedModel
    """Parameters on the meta device."""
    facts: ModelFacts
    """Every linear with its key on disk."""
    keys: KeyMap

    @classmethod
    def open(cls, folder: Path, dtype: torch.dtype | None = None, selection: Selection = ALL) -> Checkpoint:
        """Read the headers of a checkpoint; nothing is written.

        Args:
            folder: of a safetensors checkpoint.
            dtype: dtype to compute in; None = the checkpoint's.
            selection: which linears are pruned.

        Raises:
            InputError: it is no checkpoint, damaged, or of a kind that cannot be pruned; or a pattern is wrong.
        """
        reader = CheckpointReader(folder)
        return cls.of(reader, build_skeleton(reader, dtype), selection)

    @classmethod
    def of(cls, reader: CheckpointReader, model: PreTrainedModel, selection: Selection = ALL) -> Checkpoint:
        """The same for whoever has read the headers and built the `model` already."""
        facts = find_facts(model, selection)
        keys = map_keys(model, reader, facts.blocks)
        return cls(reader, model, facts.stored(keys, reader), keys)
