"""Checks what a recipe file and a command line say against the recipe's types; each complaint is one line.

jsonargparse builds the objects, but lets a section that is no section, a null or an abbreviated key pass, and its
complaints speak of types. What is refused here names the place, the key, the value, what is allowed and the nearest.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from difflib import get_close_matches
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from tamp_lightning.config.recipe_file import UsageError, read_yaml

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def did_you_mean(wrong: str, known: Sequence[str], prefix: str = "") -> str:
    """` (did you mean 'x'?)` for the nearest of `known`, by full name or by last part; empty if none is near."""
    same_leaf = [k for k in known if k.rpartition(".")[2] == wrong.rpartition(".")[2]]
    near = same_leaf or get_close_matches(wrong, known, n=1)
    return f" (did you mean '{prefix}{near[0]}'?)" if near else ""


@dataclass(frozen=True)
class Checker:
    """Checks values against the types of one recipe.

    Args:
        recipe: the recipe's dataclass.
        place: where the values stand, such as `wanda.yaml` or `command line`; starts every complaint.
        dashes: what stands before a key there, `--` on a command line.
    """

    recipe: type
    place: str
    dashes: str = ""

    def mapping(self, content: Mapping[Any, Any]) -> None:
        """Check a whole file.

        Raises:
            UsageError: the first thing that is wrong.
        """
        self._section(self.recipe, content, "")

    def option(self, key: str, text: str) -> None:
        """Check one override, `key` without dashes and the text after `=`.

        Raises:
            UsageError: no such key, or not a value of its type.
        """
        hint: Any = self.recipe
        prefix = ""
        for part in key.removesuffix("+").split("."):
            if get_origin(hint) is dict:
                return
            known = hints(hint) if is_dataclass(hint) else {}
            if part not in known:
                raise self._unknown(key.removesuffix("+"), prefix, known)
            hint, prefix = known[part], f"{prefix}{part}."
        if _takes_text(hint) or _allowed(hint, text):
            return
        value = self._read(key, text) if text and get_origin(hint) is not Literal else text
        if key.endswith("+") and get_origin(hint) is list and not isinstance(value, list):
            value = [text if _takes_text(get_args(hint)[0]) else value]
        self._value(hint, value, key)

    def _read(self, key: str, text: str) -> Any:
        try:
            return read_yaml(text)
        except yaml.YAMLError:
            raise UsageError(f"{self.place}: {self.dashes}{key} is {text!r}, which is no YAML") from None

    def _section(self, section: type, content: Mapping[Any, Any], prefix: str) -> None:
        known = hints(section)
        for key, value in content.items():
            if key not in known:
                raise self._unknown(f"{prefix}{key}", prefix, known)
            self._value(known[key], value, f"{prefix}{key}")

    def _value(self, hint: Any, value: Any, key: str) -> None:
        inner = get_args(hint)
        if is_dataclass(hint) and isinstance(value, Mapping):
            self._section(typing.cast(type, hint), value, f"{key}.")
        elif get_origin(hint) is list and is_dataclass(inner[0]) and isinstance(value, list):
            for position, item in enumerate(value):
                self._value(inner[0], item, f"{key}.{position}")
        elif get_origin(hint) is dict and is_dataclass(inner[1]) and isinstance(value, dict):
            for name, item in value.items():
                self._value(inner[1], item, f"{key}.{name}")
        elif not fits(hint, value):
            raise UsageError(f"{self.place}: {self.dashes}{key} is {value!r}{_remedy(hint, value, key)}")

    def _unknown(self, key: str, prefix: str, section: Mapping[str, Any]) -> UsageError:
        near = did_you_mean(key, all_keys(self.recipe), self.dashes)
        name = prefix.rstrip(".") or "a recipe"
        allowed = f"; {name} has {', '.join(section)}" if section else f"; {name} has no keys of its own"
        return UsageError(f"{self.place}: unknown key {self.dashes}{key}{near or allowed}")


def hints(section: Any) -> dict[str, Any]:
    """Keys of a section and their types."""
    resolved = typing.get_type_hints(section)
    return {f.name: resolved[f.name] for f in fields(section)}


def all_keys(section: Any, prefix: str = "") -> list[str]:
    """Every key of a recipe, dotted."""
    keys = []
    for name, hint in hints(section).items():
        keys.append(f"{prefix}{name}")
        if is_dataclass(hint):
            keys += all_keys(hint, f"{prefix}{name}.")
    return keys


def fits(hint: Any, value: Any) -> bool:
    """Whether `value` can stand where the type `hint` is asked for; a type not known here is left to the parser."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _allowed(hint, value)
    if origin in (Union, types.UnionType):
        return any(fits(option, value) for option in inner)
    if origin in (list, tuple):
        return isinstance(value, list | tuple) and all(fits(inner[0], item) for item in value)
    if is_dataclass(hint):
        return isinstance(value, typing.cast(type, hint))  # from Python; a mapping is looked into
    if origin is dict:
        return isinstance(value, dict)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return hint is Any or not isinstance(hint, type) or isinstance(value, hint)


def _allowed(hint: Any, value: Any) -> bool:
    members = get_args(hint) if get_origin(hint) is Literal else ()
    return isinstance(value, Hashable) and any(value == m and type(value) is type(m) for m in members)


def _takes_text(hint: Any) -> bool:
    return hint is str or (get_origin(hint) in (Union, types.UnionType) and str in get_args(hint))


def _remedy(hint: Any, value: Any, key: str) -> str:
    if key.endswith("pattern") and type(value) is int and value > 60:
        n_m = f"{value // 60}:{value % 60}"
        return f", which is how YAML reads an unquoted {n_m}; write '{n_m}' in quotes"
    members = [str(m) for m in get_args(hint)] if get_origin(hint) is Literal else []
    quote = "; put it in quotes" if _takes_text(hint) and isinstance(value, int | float | date) else ""
    near = did_you_mean(str(value), members) if isinstance(value, str) else ""
    return f", expected {describe(hint)}{near}{quote}"


def describe(hint: Any) -> str:
    """What a type allows, in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}" if len(inner) > 1 else str(inner[0])
    if origin in (Union, types.UnionType):
        return " or ".join(describe(option) for option in inner)
    if origin in (list, tuple):
        return f"a list, each {describe(inner[0])}"
    if origin is dict:
        return "a section (keys and values)"
    if is_dataclass(hint):
        return f"a section with {', '.join(f.name for f in fields(hint))}"
    return "nothing" if hint is types.NoneType else WORDS.get(hint, str(hint))
