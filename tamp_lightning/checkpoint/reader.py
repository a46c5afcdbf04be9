"""Safetensors checkpoints on disk: what they hold and where, checked before a weight is read."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tamp_lightning.compat.loading import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from tamp_lightning.errors import InputError

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a safetensors file: dtype as named there, shape, bytes ``[start, end)`` of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Shard:
    """One safetensors file: its path, size in bytes, and tensors by key in the order of their bytes."""

    path: Path
    size: int
    tensors: dict[str, TensorInfo]


def read_header(path: Path) -> Shard:
    """Read and check the header of a safetensors file.

    Raises:
        InputError: the file is missing, truncated or corrupt.
    """
    with _open(path):  # checks offsets, overlaps and the file's length
        pass
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    start = 8 + length
    infos = {
        key: TensorInfo(v["dtype"], tuple(v["shape"]), start + v["data_offsets"][0], start + v["data_offsets"][1])
        for key, v in header.items()
    }
    return Shard(path, path.stat().st_size, dict(sorted(infos.items(), key=lambda item: item[1].start)))


class CheckpointReader:
    """Reader of a folder with ``model.safetensors``, or with shards and ``model.safetensors.index.json``.

    Attributes:
        shards: file name -> :class:`Shard`.
        shard_of: key -> file name.

    Raises:
        InputError: no safetensors weights, a missing, truncated or corrupt file, or an index that disagrees
            with its shards.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = _list_shards(folder)
        self.shards = {name: read_header(folder / name) for name in listed}
        self.shard_of: dict[str, str] = {}
        for name, shard in self.shards.items():
            for key in shard.tensors:
                if key in self.shard_of:
                    raise InputError(f"tensor {key} is in both {self.shard_of[key]} and {name} of {folder}")
                self.shard_of[key] = name
        for name, keys in listed.items():
            lost = [key for key in keys if self.shard_of.get(key) != name]
            if lost:
                raise InputError(f"{folder / name} lacks {lost[0]}, which {SAFE_WEIGHTS_INDEX_NAME} says it holds")

    def info(self, key: str) -> TensorInfo:
        """Dtype, shape and place of the tensor ``key``."""
        return self.shards[self.shard_of[key]].tensors[key]

    def read(self, keys: Iterable[str], elsewhere: Mapping[str, Path] | None = None) -> dict[str, Tensor]:
        """Read tensors to memory, one at a time, as copies on the CPU in the dtype on disk.

        Args:
            keys: which tensors.
            elsewhere: key -> another safetensors file to take it from.
        """
        by_file: dict[Path, list[str]] = defaultdict(list)
        for key in keys:
            by_file[(elsewhere or {}).get(key) or self.folder / self.shard_of[key]].append(key)
        tensors: dict[str, Tensor] = {}
        for path, wanted in by_file.items():
            # Closed again for every block: an open map would keep the shard's pages in the process.
            with _open(path) as file:
                for key in wanted:
                    tensors[key] = file.get_tensor(key).clone()
        return tensors

    def slices(
        self, keys: Iterable[str], stack: ExitStack, elsewhere: Mapping[str, Path] | None = None
    ) -> dict[str, Any]:
        """Unread slices of tensors, from files that stay open until ``stack`` closes; arguments as of `read`."""
        paths = {key: (elsewhere or {}).get(key) or self.folder / self.shard_of[key] for key in keys}
        files = {path: stack.enter_context(_open(path)) for path in dict.fromkeys(paths.values())}
        return {key: files[path].get_slice(key) for key, path in paths.items()}

    def float_dtype(self) -> torch.dtype:
        """Dtype of the first floating point tensor of the first file (what transformers takes by default)."""
        shard = next(iter(self.shards.values()))
        return next((FLOATS[info.dtype] for info in shard.tensors.values() if info.dtype in FLOATS), torch.float32)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: the file is missing or holds no JSON object.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: is {path.parent} a Hugging Face checkpoint?")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({_one_line(error)}): fetch it again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def _list_shards(folder: Path) -> dict[str, list[str]]:
    """File name -> keys the index says it holds (empty for a single file), chosen in transformers' order."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give a downloaded Hugging Face checkpoint")
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        return {SAFE_WEIGHTS_NAME: []}
    if (folder / SAFE_WEIGHTS_INDEX_NAME).is_file():
        return _list_indexed(folder / SAFE_WEIGHTS_INDEX_NAME)
    if any(folder.glob("model*.safetensors")):
        raise InputError(f"{folder / SAFE_WEIGHTS_INDEX_NAME} is missing: fetch it again")
    if any(folder.glob("pytorch_model*.bin")):
        raise InputError(
            f"{folder} has only .bin weights, which are never read: load it with from_pretrained and "
            "write it with save_pretrained, which makes safetensors"
        )
    raise InputError(f"{folder} has neither {SAFE_WEIGHTS_NAME} nor {SAFE_WEIGHTS_INDEX_NAME}")


def _list_indexed(index: Path) -> dict[str, list[str]]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index} has no weight_map: fetch it again")
    listed: dict[str, list[str]] = defaultdict(list)
    for key, name in weight_map.items():
        # The names are file names of the output too, so they must not lead out of the folder.
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise InputError(f"{index} names the shard '{name}', which is no .safetensors file of its own folder")
        listed[name].append(key)
    return dict(sorted(listed.items()))


def _open(path: Path) -> Any:
    """Map a safetensors file; raise InputError in one line if it is not whole."""
    if not path.is_file():
        raise InputError(f"{path} is missing: fetch the checkpoint again")
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or corrupt ({_one_line(error)}): fetch it again") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
