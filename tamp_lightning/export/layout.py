"""Reads config.json and file headers of the bitmask form; what they mean byte by byte stands in docs/export.md."""

from __future__ import annotations

import json
import math
from pathlib import Path

from tamp_lightning.checkpoint.reader import Shard, TensorInfo, read_header, read_json
from tamp_lightning.errors import InputError
from tamp_lightning.export.form import CODES, DENSE_HEADER, LAYOUT_VERSION, METHOD, SCALES, VERSIONS, check_section


def listed_files(folder: Path) -> dict[str, str] | None:
    """The sha256 of every weight file of a folder in the bitmask form; None if it is a plain checkpoint.

    Raises:
        InputError: config.json is missing or damaged, or the layout is of another version.
    """
    section = read_json(folder / "config.json").get("quantization_config")
    if not isinstance(section, dict) or section.get("quant_method") != METHOD:
        return None
    try:
        return check_section(section)
    except InputError as error:
        raise InputError(f"{folder / 'config.json'}: {error}") from None


def described_form(folder: Path) -> str | None:
    """What a folder in the bitmask form holds, from its headers: version, values, linears and bits a weight.

    Returns:
        Words for a sentence, or None if it is a plain checkpoint.

    Raises:
        InputError: it is damaged, or of another version.
    """
    files = listed_files(folder)
    if files is None:
        return None
    section = read_json(folder / "config.json")["quantization_config"]
    linears = weights = held = 0
    for name in files:
        stored, dense = read_header(folder / name).tensors, dense_shard(folder / name)[1].tensors
        for key, info in dense.items():
            parts = [key + ending for ending in ("", *CODES.values(), SCALES) if key + ending in stored]
            if len(parts) > 1:
                linears += math.prod(info.shape[:-2])
                weights += math.prod(info.shape)
                held += sum(stored[part].end - stored[part].start for part in parts)
    values = f"{section['values']} values" if section.get("values") else "the checkpoint's own values"
    bits = f"{8 * held / max(1, weights):.2f} bits a weight"
    return f"in the bitmask form, version {section['version']}: {linears} linears with {values}, {bits}"


def raw_header(path: Path) -> str:
    """The JSON header of a safetensors file as it stands there, padding included."""
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little")).decode()


def dense_shard(path: Path) -> tuple[str, Shard]:
    """Header and tensors of the dense file that `path` was made of.

    Raises:
        InputError: the file is damaged, or holds no dense header of this version.
    """
    read_header(path)
    metadata = json.loads(raw_header(path)).get("__metadata__", {})
    if metadata.get(LAYOUT_VERSION) not in map(str, VERSIONS):
        known = " or ".join(f"'{version}'" for version in VERSIONS)
        raise InputError(f"{path} has {LAYOUT_VERSION} {metadata.get(LAYOUT_VERSION)!r}, expected {known}")
    try:
        text = metadata[DENSE_HEADER]
        return text, _parse(path, text)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path} has no valid {DENSE_HEADER}: export the checkpoint again") from None


def _parse(path: Path, text: str) -> Shard:
    tensors = {key: value for key, value in json.loads(text).items() if key != "__metadata__"}
    start = 8 + len(text.encode())
    infos = {
        key: TensorInfo(v["dtype"], tuple(v["shape"]), start + v["data_offsets"][0], start + v["data_offsets"][1])
        for key, v in tensors.items()
    }
    ordered = dict(sorted(infos.items(), key=lambda item: item[1].start))
    end = start
    for info in ordered.values():
        if info.start != end or info.end < info.start:
            raise InputError("gap")
        end = info.end
    return Shard(path, end, ordered)
