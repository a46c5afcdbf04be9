"""A checkpoint folder to its bitmask form and back: same files, same keys, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from tamp_lightning.checkpoint.facts import block_list
from tamp_lightning.checkpoint.reader import CheckpointReader, read_header, read_json
from tamp_lightning.checkpoint.skeleton import build_skeleton
from tamp_lightning.checkpoint.writer import side_files
from tamp_lightning.compat.loading import SAFE_WEIGHTS_INDEX_NAME
from tamp_lightning.errors import InputError
from tamp_lightning.export.form import METHOD, VERSIONS, verify, version_of
from tamp_lightning.export.layout import listed_files
from tamp_lightning.export.masks import Place, RunMasks, ZeroMasks, expert_places, linear_places
from tamp_lightning.export.shards import KeptOf, Sizes, compress, expand
from tamp_lightning.export.target import Target
from tamp_lightning.export.values import Rounding
from tamp_lightning.runs.folder import RunFolder

CARD = "README.md"
Cards = Callable[[Path, Sizes | None], dict[str, str]]
"""Source folder and sizes -> the model cards to write, by file name."""


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        folder: the checkpoint.
        run: the run folder it lies in, if that was named.
        reader: its files.
        files: their sha256, if it is in the bitmask form.
    """

    folder: Path
    run: Path | None
    reader: CheckpointReader = field(compare=False)
    files: dict[str, str] | None

    @classmethod
    def find(cls, path: Path) -> Source:
        """A checkpoint folder, or a run folder with `model/` and its masks.

        Raises:
            InputError: it is neither, or damaged.
        """
        run = RunFolder(path) if RunFolder(path).holds_model else None
        folder = run.model if run else path
        if not folder.is_dir():
            raise InputError(f"{path} is neither a run folder nor a checkpoint folder")
        return cls(folder, path if run else None, CheckpointReader(folder), listed_files(folder))


def to_bitmask(source: Source, out: Path, cards: Cards, values: str | None = None) -> Sizes:
    """Write `source` in the bitmask form to the new folder `out`.

    Args:
        source: what is exported.
        out: must not exist or be empty.
        cards: writes the model cards.
        values: a key of `ops.rounding.BITS`: the linears and experts of the decoder blocks, and others that are
            pruned, become whole numbers of so many bits, to the nearest. None: every bit of what is kept comes back.

    Raises:
        InputError: it is in that form already, nothing of it is sparse, its masks are of another model, or weights
            that are to be whole numbers are not finite; nothing is left behind.
    """
    if source.files is not None:
        raise InputError(f"{source.folder} is in the bitmask form already: --format dense turns it back")
    model = build_skeleton(source.reader, None)
    experts = expert_places(model, source.reader)
    places = linear_places(model, source.reader) | experts
    weights = {place.key: name in experts for name, place in places.items()}
    rounding = Rounding(values, *_rounded(model, places)) if values else None
    masks = source.run and RunFolder(source.run).masks
    kept_of: KeptOf = RunMasks(masks, places, source.reader) if masks and masks.is_file() else ZeroMasks()
    target = Target(out, _job(source, "bitmask", masks, values))
    total = Sizes()
    with target.nothing_left_behind():
        for name, shard in source.reader.shards.items():
            if name not in target.files:
                sizes = compress(shard, target.path(name), weights, kept_of, rounding)
                target.note(name, **vars(sizes))
            total.add(Sizes(**target.facts[name]))
        if not total.linears:
            raise InputError(f"{source.folder} is dense: no linear has enough zeros for a bitmask to be smaller")
        section = _with_section(source, target.files, values, version_of(bool(total.experts), values is not None))
        _finish(source, target, cards(source.folder, total), section)
    target.publish()
    return total


def to_dense(source: Source, out: Path, cards: Cards) -> None:
    """Write the plain checkpoint that `source` was made of to the new folder `out`, its weight files byte for byte.

    Raises:
        InputError: it is plain already, or a file is damaged; nothing is left behind.
    """
    if source.files is None:
        raise InputError(f"{source.folder} is a plain checkpoint already: --format bitmask makes it smaller")
    target = Target(out, _job(source, "dense", None, None))
    with target.nothing_left_behind():
        for name in source.reader.shards:
            if name in target.files:
                continue
            verify(source.folder / name, source.files.get(name))
            expand(source.folder / name, target.path(name))
            target.note(name)
        config = read_json(source.folder / "config.json")
        del config["quantization_config"]
        _finish(source, target, cards(source.folder, None), config)
    target.publish()


def _rounded(model: PreTrainedModel, places: Mapping[str, Place]) -> tuple[frozenset[str], frozenset[str]]:
    """Keys of what stands in the decoder blocks, and of those stacks of experts that lie as [in, out]."""
    blocks, _ = block_list(model)
    inside = [place for name, place in places.items() if name.startswith(f"{blocks}.")]
    return (
        frozenset(place.key for place in inside),
        frozenset(place.key for place in inside if place.piece and place.piece.transposed),
    )


def _job(source: Source, form: str, masks: Path | None, values: str | None) -> dict[str, Any]:
    """What has to be equal for an export to be taken up again: a changed source file has another size or time."""
    paths = [source.folder / name for name in source.reader.shards]
    if masks and masks.is_file():
        paths.append(masks)
    stamps = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    made_of = {"source": str(source.folder.resolve()), "files of the source": stamps}
    return {"format": form, "version": VERSIONS[-1], "values": values, **made_of}


def _with_section(source: Source, files: dict[str, str], values: str | None, version: int) -> dict[str, Any]:
    listed = {name: files[name] for name in source.reader.shards}
    section = {"quant_method": METHOD, "version": version, "files": listed}
    if values is not None:
        section["values"] = values
    return {**read_json(source.folder / "config.json"), "quantization_config": section}


def _finish(source: Source, target: Target, cards: dict[str, str], config: dict[str, Any]) -> None:
    """Everything beside the weights; config.json last: with it, the folder is a checkpoint."""
    for path in side_files(source.folder):
        name = path.relative_to(source.folder).as_posix()
        if name not in ("config.json", SAFE_WEIGHTS_INDEX_NAME, CARD):
            target.write(name, path.read_bytes())
    for name, text in cards.items():
        target.write(name, text.encode())
    index = source.folder / SAFE_WEIGHTS_INDEX_NAME
    if list(source.reader.shards) != ["model.safetensors"] and index.is_file():
        target.write(SAFE_WEIGHTS_INDEX_NAME, _json(_index(read_json(index), target, source)))
    target.write("config.json", _json(config))


def _index(index: dict[str, Any], target: Target, source: Source) -> dict[str, Any]:
    """The index for the files that were written; what else it says stays."""
    shards = {name: read_header(target.path(name)) for name in source.reader.shards}
    places = {key: name for name, shard in shards.items() for key in shard.tensors}
    metadata = dict(index.get("metadata") or {})
    if "total_size" in metadata:
        metadata["total_size"] = sum(i.end - i.start for s in shards.values() for i in s.tensors.values())
    return {**index, "metadata": metadata, "weight_map": dict(sorted(places.items()))}


def _json(content: dict[str, Any]) -> bytes:
    """As transformers writes it."""
    return (json.dumps(content, indent=2) + "\n").encode()
