"""Where the matrices of experts stand on disk: alone, or stacked as in memory, turned, or gates and ups apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tamp_lightning.checkpoint.linear import Linear, Piece
from tamp_lightning.checkpoint.reader import CheckpointReader
from tamp_lightning.compat.loading import WeightConverter, dot_natural_key
from tamp_lightning.errors import InputError


@dataclass(frozen=True)
class Origin:
    """What of the checkpoint transformers makes one parameter of."""

    groups: tuple[tuple[str, ...], ...]
    """Keys by source pattern of the conversion, in its order, and in each by number."""
    number: int
    """Which of the parameters that the conversion makes it is."""
    makes: int
    """How many it makes."""


def find_origins(names: Mapping[str, str], converted: Mapping[str, tuple[WeightConverter, str]]) -> dict[str, Origin]:
    """Full name of every parameter that transformers makes of others -> what it is made of.

    Args:
        names: key -> name of the first tensor that is made of it.
        converted: key -> the conversion and the source pattern that it met.
    """
    keys: dict[str, dict[str, list[str]]] = {}
    for key in sorted(converted, key=dot_natural_key):
        keys.setdefault(names[key], {}).setdefault(converted[key][1], []).append(key)
    found = {}
    for first, by_pattern in keys.items():
        converter = converted[next(iter(by_pattern.values()))[0]][0]
        groups = tuple(tuple(by_pattern.get(pattern, ())) for pattern in converter.source_patterns)
        for number, target in enumerate(converter.target_patterns):
            name = first.replace(converter.target_patterns[0], target)
            found[name] = Origin(groups, number, len(converter.target_patterns))
    return found


def stored_matrix(
    linear: Linear, held: tuple[int, ...], plain: str | None, origin: Origin | None, reader: CheckpointReader
) -> Linear:
    """The matrix of an expert with its key on disk, and where it stands in what is stored under that.

    Whether transformers puts it together likewise shows when its block is loaded (`stream.disk`).

    Args:
        linear: the matrix.
        held: shape of the parameter that stacks it in memory.
        plain: key of that parameter, if it is stored as it is used.
        origin: what it is made of otherwise.
        reader: the checkpoint.

    Raises:
        InputError: it is stored in a way that is not known.
    """
    piece = linear.piece
    assert piece is not None
    if plain is not None:
        return replace(linear, key=plain, stored=piece)
    found = origin and (
        _whole(linear, piece, held, origin, reader)
        or _half(linear, piece, held, origin, reader)
        or _alone(linear, piece, held[0], origin, reader)
    )
    if not found:
        raise InputError(
            f"{linear.full} is stored in a way that is not known, so that it could not be written back: leave experts "
            f"dense with exclude: ['{piece.layer.rpartition('.')[2]}\\.'], or load the model with from_pretrained and "
            "prune it in memory"
        )
    return found


def _whole(
    linear: Linear, piece: Piece, held: tuple[int, ...], origin: Origin, reader: CheckpointReader
) -> Linear | None:
    """All experts under one key, each as in memory or turned."""
    keys = [key for group in origin.groups for key in group]
    shape = reader.info(keys[0]).shape
    if len(keys) != 1 or shape not in (held, (held[0], held[2], held[1])):
        return None
    turned = shape != held  # transformers leaves a square one as it is, too
    return replace(linear, key=keys[0], stored=replace(piece, transposed=piece.transposed != turned))


def _half(
    linear: Linear, piece: Piece, held: tuple[int, ...], origin: Origin, reader: CheckpointReader
) -> Linear | None:
    """All gates under one key and all ups under another (Step-3.7)."""
    keys = [key for group in origin.groups for key in group]
    half = (held[0], held[1] // 2, held[2])
    if len(keys) != 2 or len(origin.groups) != 2 or any(reader.info(key).shape != half for key in keys):
        return None
    kind = 0 if piece.rows[0] == 0 else 1
    return replace(linear, key=keys[kind], stored=replace(piece, rows=(0, None, 1)))


def _alone(linear: Linear, piece: Piece, experts: int, origin: Origin, reader: CheckpointReader) -> Linear | None:
    """Every matrix under a key of its own; layers that one conversion makes follow each other in the numbers."""
    kind = 0 if piece.rows[0] == 0 else 1
    several = len(origin.groups) > 1
    group = origin.groups[kind if several else 0]
    if (kind and not several) or len(group) != experts * origin.makes:
        return None
    key = group[origin.number * experts + piece.expert]
    return replace(linear, key=key) if reader.info(key).shape == linear.shape else None
