"""Keys on disk <-> module names, through transformers' own conversion mapping."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from tamp_lightning.checkpoint.linear import OUTSIDE, Linear
from tamp_lightning.checkpoint.reader import FLOATS, CheckpointReader
from tamp_lightning.checkpoint.stacked import Origin, find_origins, stored_matrix
from tamp_lightning.compat.loading import (
    LoadStateDictInfo,
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    drop_missing_by_design,
    get_model_conversion_mapping,
    rename_source_key,
)
from tamp_lightning.errors import InputError

Conversion = tuple[WeightConverter, str]
"""What transformers makes other tensors of some with, and the source pattern that a key met."""


@dataclass(frozen=True)
class KeyMap:
    """Which key of the checkpoint is which tensor of the model.

    Attributes:
        blocks: per decoder block, tensor name relative to the block -> key on disk.
        others: keys on disk of everything else the model uses.
        outside: tensor name -> key on disk for those of `others` that are stored as they are used.
        missing: names of tensors that no key gives (tied ones, or ones transformers knows how to do without).
        converted: per decoder block, keys on disk of which transformers makes its other tensors on loading.
        sources: full name of such a tensor -> what it is made of, in words.
        origins: the same as keys.
        shapes: full name of every tensor of the model -> its shape.
    """

    blocks: tuple[dict[str, str], ...]
    others: tuple[str, ...]
    outside: dict[str, str]
    missing: frozenset[str]
    converted: tuple[tuple[str, ...], ...]
    sources: dict[str, str]
    origins: dict[str, Origin]
    shapes: dict[str, tuple[int, ...]]


def map_keys(model: PreTrainedModel, reader: CheckpointReader, blocks: str) -> KeyMap:
    """Map the checkpoint's keys to ``model``, whose decoder blocks are at the dotted path ``blocks``.

    Raises:
        InputError: keys are missing or unexpected, or a shape does not fit.
    """
    names, converted = _rename(model, reader.shard_of)
    _refuse_ambiguous(names, converted)
    missing = _check_complete(model, reader, names, converted)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    count = len(model.get_submodule(blocks))  # type: ignore[arg-type]
    by_block: tuple[dict[str, str], ...] = tuple({} for _ in range(count))
    made: tuple[list[str], ...] = tuple([] for _ in range(count))
    others: list[str] = []
    outside: dict[str, str] = {}
    pattern = re.compile(re.escape(blocks) + r"\.(\d+)\.(.+)")
    for key, name in names.items():
        if name not in shapes:
            continue
        if key not in converted and reader.info(key).shape != shapes[name]:
            raise InputError(f"{key} has shape {reader.info(key).shape} on disk, but the model needs {shapes[name]}")
        if (match := pattern.fullmatch(name)) and key in converted:
            made[int(match[1])].append(key)
        elif match:
            by_block[int(match[1])][match[2]] = key
        else:
            others.append(key)
            outside |= {} if key in converted else {name: key}
    sources = {target: text for _, text, target in _sources(names, converted)}
    origins = find_origins(names, converted)
    return KeyMap(
        by_block, tuple(others), outside, frozenset(missing), tuple(map(tuple, made)), sources, origins, shapes
    )


def stored_linear(linear: Linear, keys: KeyMap, reader: CheckpointReader) -> Linear:
    """The same linear with its key on disk.

    Raises:
        InputError: its weight is not stored as one tensor of its own, or not as plain floating point (an undeclared
            quantisation).
    """
    if linear.piece is not None:
        full = linear.full.removesuffix(linear.name) + linear.parameter
        plain = keys.blocks[linear.block].get(linear.parameter)
        found = stored_matrix(linear, keys.shapes[full], plain, keys.origins.get(full), reader)
        return _checked(found, reader)
    inside = linear.block != OUTSIDE
    key = (keys.blocks[linear.block] if inside else keys.outside).get(linear.parameter)
    if key is None:
        source = keys.sources.get(f"{linear.full}.weight", "other tensors")
        remedy = "exclude it, or load it with from_pretrained and prune it in memory" if inside else "exclude it with"
        raise InputError(
            f"{linear.full}.weight is not stored as it is used: transformers makes it of {source}, which cannot be "
            f"written back: {remedy}{'' if inside else ' towers.exclude'}"
        )
    return _checked(replace(linear, key=key), reader)


def _checked(linear: Linear, reader: CheckpointReader) -> Linear:
    assert linear.key is not None
    if (dtype := reader.info(linear.key).dtype) not in FLOATS:
        raise InputError(f"{linear.key} is stored as {dtype}; only {', '.join(FLOATS)} can be pruned")
    return linear


def stored_as_used(model: PreTrainedModel, keys: Iterable[str]) -> dict[str, str]:
    """Name of a tensor of ``model`` -> its key on disk, unless tensors are merged, split or stacked on loading."""
    names, converted = _rename(model, keys)
    expected = model.state_dict().keys()
    return {name: key for key, name in names.items() if key not in converted and name in expected}


def _rename(model: PreTrainedModel, keys: Iterable[str]) -> tuple[dict[str, str], dict[str, Conversion]]:
    """Key -> module name as ``from_pretrained`` has it; key -> conversion where it is not only renamed."""
    mapping = get_model_conversion_mapping(model)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    prefix, expected = model.base_model_prefix, model.state_dict()
    names: dict[str, str] = {}
    converted: dict[str, Conversion] = {}
    for key in sorted(keys, key=dot_natural_key):  # some renamings depend on this order
        name, pattern = rename_source_key(key, renamings, converters, prefix, expected)
        if name not in expected and key in expected:
            name, pattern = rename_source_key(key, [], [], prefix, expected)
        names[key] = name
        if pattern is not None:
            converted[key] = next(entry for entry in converters if pattern in entry.source_patterns), pattern
    return names, converted


def _sources(names: dict[str, str], converted: dict[str, Conversion]) -> Iterator[tuple[str, str, str]]:
    """A key, what transformers does with it in words, and the full name of a tensor that comes of it."""
    for key, (converter, _) in converted.items():
        how = " and ".join(type(operation).__name__ for operation in converter.operations)
        first = converter.target_patterns[0]
        for target in converter.target_patterns:
            yield key, f"{key} by {how}", names[key].replace(first, target)


def _refuse_ambiguous(names: dict[str, str], converted: dict[str, Conversion]) -> None:
    first: dict[str, str] = {}
    for key, name in names.items():
        if key not in converted and first.setdefault(name, key) != key:
            raise InputError(f"{first[name]} and {key} of the checkpoint both mean {name}: remove one")


def _check_complete(
    model: PreTrainedModel,
    reader: CheckpointReader,
    names: dict[str, str],
    converted: dict[str, Conversion],
) -> set[str]:
    """Return the missing names that are no fault; raise on the others."""
    expected = set(model.state_dict())
    given = set(names.values()) & expected
    for key, (converter, _) in converted.items():
        first = converter.target_patterns[0]
        given |= {names[key].replace(first, target) for target in converter.target_patterns} & expected
    missing = expected - given
    info = LoadStateDictInfo(
        missing_keys=missing - _tied(model, given),
        unexpected_keys=set(names.values()) - expected,
        mismatched_keys=set(),
        error_msgs=[],
        conversion_errors={},
        skipped_pp_keys=set(),
    )
    drop_missing_by_design(model, info)
    for what, left in (("lacks", info.missing_keys), ("has unexpected", info.unexpected_keys)):
        if left:
            some = ", ".join(sorted(left)[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
            raise InputError(f"{reader.folder} {what} tensors for {type(model).__name__}: {some}")
    return missing


def _tied(model: PreTrainedModel, given: set[str]) -> set[str]:
    """Names that get their tensor from a tied one which the checkpoint has."""
    tied: set[str] = set()
    for target, source in (model.all_tied_weights_keys or {}).items():
        group = {source} | {t for t, s in model.all_tied_weights_keys.items() if s == source}
        if group & given:
            tied |= {target, source}
    return tied
