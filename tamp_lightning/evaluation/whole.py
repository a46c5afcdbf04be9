"""Whole models, for scoring, and what tells one checkpoint from another."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from transformers import AutoConfig, AutoProcessor, PreTrainedModel, ProcessorMixin

from tamp_lightning.checkpoint.skeleton import model_class
from tamp_lightning.data.readers.tables import sha256_of
from tamp_lightning.errors import InputError
from tamp_lightning.files import write_json
from tamp_lightning.resources import cache_folder

CHECKSUMS = "checksums.json"


def load_whole(folder: Path, dtype: torch.dtype | None) -> PreTrainedModel:
    """The whole model of a checkpoint."""
    return model_class(AutoConfig.from_pretrained(folder)).from_pretrained(folder, dtype=dtype or "auto").eval()


def load_processor(folder: Path) -> ProcessorMixin:
    """The processor of a checkpoint.

    Raises:
        InputError: there is none, or it has no chat template.
    """
    try:
        processor = AutoProcessor.from_pretrained(folder)
    except (ValueError, OSError) as error:
        raise InputError(f"{folder} holds no processor: {str(error).splitlines()[0]}") from None
    if not isinstance(processor, ProcessorMixin) or processor.chat_template is None:
        kind = type(processor).__name__
        raise InputError(f"{folder} holds a {kind} without a chat template: add chat_template.jinja to the checkpoint")
    return processor


def checkpoint_sha256(folder: Path) -> str:
    """Checksum over the contents of a checkpoint's files, in the order of their names, README aside.

    All bytes count: a pruned checkpoint differs from its dense one in nothing but its weights. It is remembered by the
    files' paths, sizes and times of change, for reading a large checkpoint takes minutes.
    """
    files = [f for f in folder.rglob("*") if f.is_file() and not f.name.startswith(".")]
    files = sorted(f for f in files if not f.name.startswith("README"))
    if not files:
        return ""
    known = [[str(f.resolve()), (stat := f.stat()).st_size, stat.st_mtime_ns, stat.st_ino] for f in files]
    key, memory = json.dumps(known), answers_folder() / CHECKSUMS
    held: dict[str, str] = _read(memory)
    if key not in held:
        found = sha256_of(files)
        memory.parent.mkdir(parents=True, exist_ok=True)
        held = dict(list(_read(memory).items())[-99:]) | {key: found}
        write_json(memory, held)
    return held[key]


def answers_folder() -> Path:
    """Where answers of checkpoints are kept: `$TAMP_ANSWERS`, else below the user's cache folder."""
    return Path(os.environ.get("TAMP_ANSWERS") or cache_folder() / "answers")


def _read(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError):  # none yet, or cut off: then it is read again
        return {}
