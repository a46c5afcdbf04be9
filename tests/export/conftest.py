"""Tiny pruned checkpoints, and run folders around them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from tamp_lightning.export.job import Source, to_bitmask, to_dense
from tamp_lightning.ops.bits import pack_bits
from tamp_lightning.stream import DiskStream

from ..stream.conftest import make_llava, prune, save

NO_CARDS: Callable = lambda folder, sizes: {}  # noqa: E731


def pruned_run(
    path: Path, model: PreTrainedModel | None = None, dtype: torch.dtype = torch.float32, **layout: bool
) -> Path:
    """A run folder: `model/`, half of whose decoder weights are masked, and `masks.safetensors`."""
    source = save((model or make_llava()).to(dtype), path.parent / f"{path.name}-dense", **layout)
    stream = DiskStream(source, path / "model")
    masks = prune(stream)
    stream.finish()
    write_masks(path, masks)
    return path


def write_masks(run: Path, masks: dict[str, torch.Tensor]) -> None:
    shapes = {name: json.dumps(list(mask.shape)) for name, mask in masks.items()}
    save_file({name: pack_bits(mask) for name, mask in masks.items()}, run / "masks.safetensors", metadata=shapes)


def bitmask(source: Path, out: Path) -> Path:
    to_bitmask(Source.find(source), out, NO_CARDS)
    return out


def dense(source: Path, out: Path) -> Path:
    to_dense(Source.find(source), out, NO_CARDS)
    return out


def weight_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def save_again(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Other tensors in a file that keeps its metadata."""
    with safe_open(file, "pt") as old:
        metadata = old.metadata()
    save_file(tensors, file, metadata=metadata)


def n_of_m(shape: tuple[int, int], n: int, m: int, seed: int = 0) -> np.ndarray:
    """A random mask that keeps n of every m."""
    order = np.random.default_rng(seed).random((shape[0], shape[1] // m, m)).argsort(-1).argsort(-1)
    return (order < n).reshape(shape)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return pruned_run(tmp_path / "run")
