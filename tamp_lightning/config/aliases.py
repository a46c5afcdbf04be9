"""Keys and values of recipes that had other names once: still read, and one line says what they are called now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from tamp_lightning.methods.method import Method

RENAMED_VALUES: dict[str, dict[str, str]] = {"scores.mode": {"ride_along": "layer_wise"}}
"""Dotted key -> old value -> new value."""
RENAMED_KEYS: dict[str, str] = {"method.polish": "method.reconstruct"}
"""Dotted key -> the same key in the same section under its new name, such as method.old -> method.new."""


def modern(content: Mapping[Any, Any], notes: list[str]) -> dict[Any, Any]:
    """A recipe's content under today's names; what was renamed is added to `notes`.

    Where old and new stand side by side, the old is left, to be refused as unknown.
    """
    found: dict[Any, Any] = dict(content)
    for old, new in _spellings(found):
        section, key = _section(found, old)
        name = new.rpartition(".")[2]
        if key in section and name not in section:
            notes.append(f"{old} is now {new}")
            section[name] = section.pop(key)
    for dotted, values in RENAMED_VALUES.items():
        section, key = _section(found, dotted)
        value = section.get(key)
        if isinstance(value, str) and value in values:
            notes.append(f"{dotted} {value} is now {values[value]}")
            section[key] = values[value]
    return found


def completed(method: Mapping[str, Any]) -> dict[str, Any]:
    """A method as an older version wrote it, with every section and key that it did not know at today's default."""
    today = json.loads(json.dumps(asdict(Method())))  # as a file holds it, without tuples
    sections = {name: held for name, held in today.items() if isinstance(held, dict)}
    return {**method, **{name: held | method.get(name, {}) for name, held in sections.items()}}


def modern_option(key: str, value: str, notes: list[str]) -> tuple[str, str]:
    """The same for one override of the command line: key without dashes, and its text."""
    for old, new in RENAMED_KEYS.items():
        if f"{key}.".startswith(f"{old}."):
            notes.append(f"--{old} is now --{new}")
            key = new + key.removeprefix(old)
    if (name := RENAMED_VALUES.get(key, {}).get(value)) is not None:
        notes.append(f"--{key}={value} is now --{key}={name}")
        return key, name
    return key, value


def _spellings(content: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    """Old and new keys; those of `method` also as they stand in each of a comparison's `methods`."""
    methods = content.get("methods")
    for old, new in RENAMED_KEYS.items():
        yield old, new
        if old.startswith("method.") and isinstance(methods, Mapping):
            yield from ((old.replace("method", f"methods.{n}", 1), new) for n in methods if "." not in str(n))


def _section(content: dict[Any, Any], dotted: str) -> tuple[dict[Any, Any], str]:
    """The section in which a dotted key would stand, copied into `content` so that it may be changed; and the key."""
    *path, key = dotted.split(".")
    for part in path:
        if not isinstance(content.get(part), dict):
            return {}, key
        content[part] = dict(content[part])
        content = content[part]
    return content, key
