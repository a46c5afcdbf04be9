"""One safetensors file to its bitmask form and back, a tensor in memory at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from tamp_lightning.checkpoint.reader import Shard, TensorInfo, read_header
from tamp_lightning.errors import InputError
from tamp_lightning.export.codec import Bits
from tamp_lightning.export.form import BIT_TYPES, CODES, DENSE_HEADER, LAYOUT_VERSION, SCALES, version_of
from tamp_lightning.export.layout import dense_shard, raw_header
from tamp_lightning.export.values import Rounding, Stored, size_of, stored_parts
from tamp_lightning.files import CHUNK, atomic_write, read_range

WIDTHS = {"F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
"""Bytes of an element by its name in safetensors; one for all others."""
KeptOf = Callable[[str, Bits], NDArray[np.bool_]]
"""Key and bits of a weight -> which of its weights are kept."""


@dataclass
class Sizes:
    """Bytes and weights of what was encoded, dense and now."""

    dense: int = 0
    encoded: int = 0
    weights: int = 0
    kept: int = 0
    linears: int = 0
    """How many matrices."""
    experts: int = 0
    """How many of these are of experts, of which a tensor may hold several."""
    rounded: int = 0
    """How many of the linears became whole numbers."""

    def add(self, other: Sizes) -> None:
        """Add another file's."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def compress(
    source: Shard, out: Path, weights: Mapping[str, bool], kept_of: KeptOf, rounding: Rounding | None = None
) -> Sizes:
    """Write `source` with `weights` encoded where that takes fewer bytes; everything else keeps its bytes.

    Args:
        source: the dense file.
        out: file to write.
        weights: keys of weights [o, c], and of stacks of them [e, o, c], that may be encoded -> whether of experts.
        kept_of: which of a weight's elements are kept.
        rounding: what becomes whole numbers; None = nothing, all bits are kept.

    Raises:
        InputError: the file changed or is damaged, or `kept_of` or `rounding` refuses a weight.
    """
    sizes = Sizes()
    with atomic_write(out, out.with_suffix(".tmp")) as scratch, ExitStack() as stack:
        spool = _Spool(scratch, stack)
        for key, info in source.tensors.items():
            if key not in weights:
                spool.add(key, info.dtype, info.shape, read_range(source.path, info.start, info.end))
                continue
            weight = read_bits(source.path, info)
            parts = stored_parts(key, weight, info.dtype, kept := kept_of(key, weight), rounding)
            for ending, (dtype, content) in parts.items():
                spool.add(key + ending, dtype, content.shape, iter([content.tobytes()]))
            if len(parts) > 1:
                count = math.prod(weight.shape[:-2])
                sizes.add(Sizes(weight.nbytes, size_of(parts), weight.size, int(np.count_nonzero(kept)), count))
                sizes.experts += count * weights[key]
                sizes.rounded += count * (SCALES in parts)
        spool.write(scratch, _metadata(source.path, version_of(bool(sizes.experts), rounding is not None)))
    return sizes


def expand(source: Path, out: Path) -> None:
    """Write the dense file that `source` was made of, byte for byte.

    Raises:
        InputError: the file is damaged or of another version.
    """
    header, dense = dense_shard(source)
    stored = read_header(source).tensors
    with atomic_write(out, out.with_suffix(".tmp")) as scratch, scratch.open("wb") as file:
        file.write(len(header.encode()).to_bytes(8, "little") + header.encode())
        for key, info in dense.tensors.items():
            for chunk in _dense_bytes(source, key, info, stored):
                file.write(chunk)


def _dense_bytes(source: Path, key: str, info: TensorInfo, stored: Mapping[str, TensorInfo]) -> Iterator[bytes]:
    kind = next((kind for kind, ending in CODES.items() if key + ending in stored), None)
    here, scales = stored.get(key), stored.get(key + SCALES)
    right = here is not None and (scales is not None or here.dtype == info.dtype)
    if here is None or not right or (kind is None and scales is None and here.shape != info.shape):
        raise InputError(f"{source} does not hold {key} as {info.dtype} {list(info.shape)}: export it again")
    if kind is None and scales is None:
        yield from read_range(source, here.start, here.end)
        return
    code = None if kind is None else read_bits(source, stored[key + CODES[kind]])
    grid = None if scales is None else read_bits(source, scales)
    try:
        weight = Stored(read_bits(source, here), here.dtype, kind, code, grid, info.shape, info.dtype).restore()
        yield weight.view(torch.uint8).numpy().tobytes()
    except InputError as error:
        raise InputError(f"{key} in {source}: {error}") from None


def read_bits(path: Path, info: TensorInfo) -> Bits:
    """A tensor as integers of its width, in its shape.

    Raises:
        InputError: the file became shorter.
    """
    count = math.prod(info.shape)
    bits: Bits = np.fromfile(path, dtype=BIT_TYPES.get(info.dtype, np.uint8), count=count, offset=info.start)
    if bits.size != count:
        raise InputError(f"{path} became shorter while it was read")
    return bits.reshape(info.shape)


def _metadata(dense: Path, version: int) -> dict[str, str]:
    header = raw_header(dense)
    own = json.loads(header).get("__metadata__") or {"format": "pt"}
    return {**own, LAYOUT_VERSION: str(version), DENSE_HEADER: header}


@dataclass
class _Spool:
    """Payload of a safetensors file until its header is known, one file per width of element.

    Sizes are known only when everything is encoded. Wide elements come first, as safetensors itself has it, so that
    every tensor starts at a multiple of its width and can be mapped.
    """

    scratch: Path
    stack: ExitStack
    files: dict[int, BinaryIO] = field(default_factory=dict)
    entries: dict[int, list[tuple[str, str, list[int], int]]] = field(default_factory=dict)

    def add(self, key: str, dtype: str, shape: tuple[int, ...], chunks: Iterator[bytes | memoryview]) -> None:
        width = WIDTHS.get(dtype, 1)
        file = self.files.get(width) or self._open(width)
        written = sum(file.write(chunk) for chunk in chunks)
        self.entries[width].append((key, dtype, list(shape), written))

    def write(self, out: Path, metadata: Mapping[str, str]) -> None:
        header: dict[str, object] = {"__metadata__": dict(metadata)}
        position = 0
        for width in sorted(self.files, reverse=True):
            for key, dtype, shape, size in self.entries[width]:
                header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
                position += size
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        with out.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for width in sorted(self.files, reverse=True):
                self.files[width].seek(0)
                while chunk := self.files[width].read(CHUNK):
                    file.write(chunk)

    def _open(self, width: int) -> BinaryIO:
        path = self.scratch.with_suffix(f".{width}.tmp")
        self.stack.callback(path.unlink, missing_ok=True)
        self.files[width] = self.stack.enter_context(path.open("w+b"))
        self.entries[width] = []
        return self.files[width]
