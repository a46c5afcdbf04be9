"""A frozen dataclass whose fields grow with what is registered: a section of constants for every member with any."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import Field, field, fields, is_dataclass, make_dataclass
from typing import Any, Literal

from tamp_lightning.errors import InputError

MADE = ("__init__", "__repr__", "__eq__", "__hash__", "__match_args__", "__dataclass_fields__")


class Sections:
    """Keeps a dataclass up to date with the members that its choices may name.

    The class stays the same object, so that types that name it and instances made before stay valid: these have the
    new sections with their defaults.

    Args:
        owner: a frozen dataclass with one text field per choice.
    """

    def __init__(self, owner: type) -> None:
        hints = typing.get_type_hints(owner)
        self.owner, self._after = owner, getattr(owner, "__post_init__", None)
        self._own: dict[str, tuple[Any, Field]] = {f.name: (hints[f.name], f) for f in fields(owner)}

    def declare(self, members: Mapping[str, Mapping[str, type]], names: Mapping[str, Sequence[str]]) -> None:
        """Give the dataclass one field per member with constants, and its choices the names they may have.

        Args:
            members: the classes by choice and name.
            names: all names by choice, those of members not yet imported too; choices not in it take any text.

        Raises:
            InputError: a member is no frozen dataclass, or has the name of a field or of another choice's section.
        """
        sections: dict[str, type] = {}
        homes = dict.fromkeys(self._own, "method")
        for choice, classes in members.items():
            for name, member in classes.items():
                if not is_dataclass(member):
                    raise InputError(f"{choice} {name!r} cannot be registered: it has to be a frozen dataclass")
                if fields(member):
                    if name in homes:
                        raise InputError(
                            f"{name} would be a section of {homes[name]} and of {choice}: choose another name"
                        )
                    sections[name], homes[name] = member, choice
        own: list[tuple[str, Any, Any]] = [
            (name, Literal[tuple(names[name])] if name in names else hint, _copy(old))
            for name, (hint, old) in self._own.items()
        ]
        added: list[tuple[str, Any, Any]] = [
            (name, section, field(default=section())) for name, section in sections.items()
        ]
        # the made class only lends its methods; its __init__ calls __post_init__ if there is one
        after = {"__post_init__": self._after} if self._after else {}
        made = make_dataclass(self.owner.__name__, own + added, frozen=True, namespace=after)
        for name in MADE:
            setattr(self.owner, name, getattr(made, name))
        self.owner.__annotations__ = {name: hint for name, hint, _ in own + added}
        for name, _, default in added:
            setattr(self.owner, name, default.default)


def _copy(old: Field) -> Any:
    return field(default=old.default, default_factory=old.default_factory)
