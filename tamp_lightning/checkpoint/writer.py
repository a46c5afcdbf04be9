"""Pruned copies of a checkpoint's files: same keys and layout, other bytes only where it was pruned."""

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from tamp_lightning.checkpoint.reader import CheckpointReader, Shard, read_header
from tamp_lightning.compat.loading import SAFE_WEIGHTS_INDEX_NAME
from tamp_lightning.errors import InputError
from tamp_lightning.files import atomic_write, read_range, sha256_of

# What belongs to a checkpoint beside its weights: a list of the allowed, so that code and pickles stay out.
_COPIED = {".json", ".jinja", ".txt", ".model", ".md", ".tiktoken", ".vocab", ".bpe", ""}
_CHAT_TEMPLATES = "additional_chat_templates"

TOWERS = -1
"""Number of towers and projector, which are written like a block."""


class ShardWriter:
    """Collects pruned blocks and writes each file as soon as its last block is there.

    Blocks wait in ``out/.partial/block-NNNNN.safetensors``. A finished file has the source file's header,
    byte for byte, so key order, dtypes, shapes and metadata are the source's. Nothing half-written carries a
    final name.

    Args:
        reader: the source checkpoint.
        out: folder to write; it must not exist or be empty, unless `resumes`.
        pruned: block (or `TOWERS`) -> keys on disk of its prunable weights.
        resumes: whether an earlier run may have written some of it (`resume`).

    Attributes:
        files: sha256 of every file written so far, by its path relative to ``out``.
        place: key of a committed tensor -> the file that holds it now.

    Raises:
        InputError: ``out`` has content, cannot be written, or the disk has no room.
    """

    def __init__(
        self, reader: CheckpointReader, out: Path, pruned: Mapping[int, Sequence[str]], resumes: bool = False
    ) -> None:
        if not resumes:
            refuse_existing(out)
        self.reader, self.out, self.pruned = reader, out, pruned
        self.partial = out / ".partial"
        self.files: dict[str, str] = {}
        self.place: dict[str, Path] = {}
        self._waits: dict[str, set[int]] = {name: set() for name in reader.shards}
        for block, keys in pruned.items():
            for key in keys:
                self._waits[reader.shard_of[key]].add(block)
        self._left = {block for block, keys in pruned.items() if keys}
        self._check_room()

    def put(self, block: int, tensors: dict[str, Tensor]) -> None:
        """Take the changed tensors (key -> tensor, both as on disk) of a block; the block is then final."""
        # Only now: as long as nobody has noted that the last block is final, its shard may have to be written again.
        self._drop_spools()
        spool = self._spool(block)
        with atomic_write(spool, spool.with_suffix(".tmp")) as scratch:
            save_file(tensors, scratch)
        self.place |= dict.fromkeys(tensors, spool)
        self._left.discard(block)
        for name, blocks in self._waits.items():
            if block in blocks:
                blocks.remove(block)
                if not blocks:
                    self._write_shard(name)

    def resume(self, finished: Mapping[int, Sequence[str]], files: Mapping[str, str]) -> int:
        """Take up what an earlier run wrote; to be called before the first `put`.

        Args:
            finished: block (or `TOWERS`) -> keys it had put, in the order in which it put them.
            files: sha256 of the files it had written by then.

        Returns:
            How many of these are still there: those from the first missing one on have to be put again.

        Raises:
            InputError: a file is not what was written.
        """
        whole = {name for name in files if name in self.reader.shards and (self.out / name).is_file()}
        for name in sorted(whole):
            self._verify(name, files[name])
        for number, (block, keys) in enumerate(finished.items()):
            places = {key: self._find(block, key, whole) for key in keys}
            if None in places.values():
                return number
            self.place |= {key: path for key, path in places.items() if path is not None}
            self._left.discard(block)
            for name, blocks in self._waits.items():
                blocks.discard(block)
                if name in whole and not blocks:
                    self.files[name] = files[name]
        return len(finished)

    def _verify(self, name: str, sha256: str) -> None:
        path, size = self.out / name, self.reader.shards[name].size
        remedy = "delete it and run again, then its blocks are pruned anew"
        if path.stat().st_size != size:
            raise InputError(f"{path} has {path.stat().st_size} bytes where {size} were written: {remedy}")
        if sha256_of(path) != sha256:
            raise InputError(f"{path} is not what was written (its sha256 is another): {remedy}")

    def _find(self, block: int, key: str, whole: Collection[str]) -> Path | None:
        """The file that holds a tensor of a block which an earlier run put."""
        if (name := self.reader.shard_of[key]) in whole:
            return self.out / name
        spool = self._spool(block)
        if not spool.is_file():
            return None
        try:
            return spool if key in read_header(spool).tensors else None
        except ValueError:
            raise InputError(f"{spool} is truncated: delete it and run again, then its block is pruned anew") from None

    def _spool(self, block: int) -> Path:
        return self.partial / f"block-{block:05d}.safetensors"

    def finish(self) -> dict[str, str]:
        """Write what no block touches and the files beside the weights; return the sha256 of all files.

        Raises:
            RuntimeError: a block with prunable weights was never committed.
        """
        if self._left:
            raise RuntimeError(f"blocks {sorted(self._left)} were not committed: the output would be half pruned")
        self.out.mkdir(parents=True, exist_ok=True)
        self.partial.mkdir(exist_ok=True)
        for name in self.reader.shards:
            if name not in self.files:
                self._write_shard(name)
        for path in side_files(self.reader.folder):  # config.json last: with it, the folder is a checkpoint
            name = path.relative_to(self.reader.folder).as_posix()
            self._write(name, read_range(path, 0, path.stat().st_size))
        shutil.rmtree(self.partial)
        return self.files

    def _write_shard(self, name: str) -> None:
        source = self.reader.shards[name]
        self._write(name, _pruned_bytes(source, {key: self.place[key] for key in source.tensors if key in self.place}))
        for key in source.tensors:
            if key in self.place:
                self.place[key] = self.out / name

    def _write(self, name: str, chunks: Iterator[bytes]) -> None:
        digest = hashlib.sha256()
        scratch = self.partial / f"{name.replace('/', '__')}.tmp"
        with atomic_write(self.out / name, scratch), scratch.open("wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
        self.files[name] = digest.hexdigest()

    def _drop_spools(self) -> None:
        """Delete spools whose tensors are all in finished files: they would double the space needed."""
        used = set(self.place.values())
        for spool in self.partial.glob("block-*.safetensors"):
            if spool not in used:
                spool.unlink()

    def _check_room(self) -> None:
        spooled = [
            sum(
                self.reader.info(key).end - self.reader.info(key).start
                for keys in self.pruned.values()
                for key in keys
                if self.reader.shard_of[key] == name
            )
            for name in self.reader.shards
        ]
        left = [shard.size for name, shard in self.reader.shards.items() if not (self.out / name).is_file()]
        needed = sum(left) + max(spooled)
        existing = next(folder for folder in (self.out, *self.out.absolute().parents) if folder.exists())
        if not os.access(existing, os.W_OK):
            raise InputError(f"{self.out} cannot be written: {existing} is read-only, choose another folder")
        free = shutil.disk_usage(existing).free
        if free < needed:
            raise InputError(f"{self.out} needs {needed / 1e9:.1f} GB, but {existing} has {free / 1e9:.1f} GB free")


def is_taken(out: Path) -> bool:
    """Whether an output folder cannot be used: it is a file, or has content."""
    return out.exists() and (not out.is_dir() or any(out.iterdir()))


def refuse_existing(out: Path) -> None:
    """Refuse an output folder with content.

    Raises:
        InputError: naming the folder and the remedy.
    """
    if is_taken(out):
        raise InputError(f"{out} exists and is not empty. Nothing is overwritten: remove it or name another folder")


def _pruned_bytes(source: Shard, replaced: Mapping[str, Path]) -> Iterator[bytes]:
    """Bytes of ``source`` with those of the ``replaced`` tensors taken from other safetensors files."""
    headers = {path: read_header(path) for path in set(replaced.values())}
    position = 0
    for key, info in source.tensors.items():
        if key not in replaced:
            continue
        new = headers[replaced[key]].tensors[key]
        if (new.dtype, new.shape) != (info.dtype, info.shape):
            raise RuntimeError(f"{key} was {info.dtype}{info.shape} and became {new.dtype}{new.shape}")
        yield from read_range(source.path, position, info.start)
        yield from read_range(replaced[key], new.start, new.end)
        position = info.end
    yield from read_range(source.path, position, source.size)


def side_files(folder: Path) -> list[Path]:
    """Files to copy beside the weights, ``config.json`` last."""
    found = [*folder.iterdir(), *(folder / _CHAT_TEMPLATES).glob("*.jinja")]
    copied = [path for path in found if path.is_file() and not path.name.startswith(".") and path.suffix in _COPIED]
    weights = (".bin.index.json", ".safetensors.index.json")
    copied = [p for p in copied if not p.name.endswith(weights) or p.name == SAFE_WEIGHTS_INDEX_NAME]
    if (folder / "model.safetensors").is_file():  # then transformers, and so the reader, ignores an index
        copied = [p for p in copied if p.name != SAFE_WEIGHTS_INDEX_NAME]
    return sorted(copied, key=lambda path: (path.name == "config.json", path.name))
