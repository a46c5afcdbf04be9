"""Typed sections from plain mappings, for those who call from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, TypeVar

from tamp_lightning.config.check import Checker, hints
from tamp_lightning.config.plugins import load_members

Section = TypeVar("Section")


def build(kind: type[Section], values: Mapping[str, Any], place: str) -> Section:
    """A section of a recipe from its keys and values; sections in it may be mappings or objects.

    Raises:
        InputError: a key or value that a recipe would not take; the message starts with `place`.
    """
    load_members(values)
    Checker(kind, place).mapping(values)
    return _made(kind, values)


def _made(kind: Any, values: Mapping[str, Any]) -> Any:
    known = hints(kind)
    inner = {k: _made(known[k], v) for k, v in values.items() if is_dataclass(known[k]) and isinstance(v, Mapping)}
    return kind(**{**values, **inner})
