"""Choices that other packages may add to: a recipe's name, and the class or object that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from tamp_lightning.errors import InputError

Member = TypeVar("Member")
Added = TypeVar("Added")


class Registry(Mapping[str, Member], Generic[Member]):
    """Members of one choice by name, in the order in which they were registered.

    Other packages offer theirs as entry points, whose names are the recipe's; one is imported when it is first used.

    Args:
        choice: what is chosen, as a recipe and error messages call it, such as `solver`.
        group: group of entry points, such as `tamp_lightning.solvers`.
    """

    def __init__(self, choice: str, group: str) -> None:
        self.choice, self.group = choice, group
        self.watchers: list[Callable[[], None]] = []
        """Called after every registration."""
        self._members: dict[str, Member] = {}

    def register(self, name: str) -> Callable[[Added], Added]:
        """Decorator that gives a class its name in recipes.

        Raises:
            InputError: as `add`.
        """

        def decorate(member: Added) -> Added:
            self.add(name, member)  # type: ignore[arg-type]
            return member

        return decorate

    def add(self, name: str, member: Member) -> None:
        """Register a member; the same class defined anew, as in a notebook, takes the place of the old one.

        Raises:
            InputError: the name is taken by another, or cannot be a recipe's key.
        """
        if not name.isidentifier():
            raise InputError(f"{self.choice} {name!r} cannot be registered: use letters, digits and _")
        old = self._members.get(name)
        if old is not None and old is not member and not _defined_anew(old, member):
            raise InputError(f"{self.choice} {name!r} is registered already, as {old!r:.80}: choose another name")
        self._members[name] = member
        try:
            for watcher in self.watchers:
                watcher()
        except InputError:
            if old is None:
                del self._members[name]
            else:
                self._members[name] = old
            raise

    def load(self, name: object) -> None:
        """Import the member of this name if another package offers it and it is not registered yet."""
        if isinstance(name, str) and name not in self._members and name in _offered(self.group):
            found = _offered(self.group)[name].load()
            if name not in self._members:  # importing it may have registered it
                self.add(name, found)

    def loaded(self) -> dict[str, Member]:
        """The members that are registered by now; those of other packages only once they were used."""
        return dict(self._members)

    def find(self, name: str) -> Member:
        """The member of this name.

        Raises:
            InputError: there is none; names the allowed ones and the nearest.
        """
        if name in self:
            return self[name]
        near = get_close_matches(str(name), list(self), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(f"{self.choice} is {name!r}; it has to be one of {', '.join(self)}.{hint}")

    def __getitem__(self, name: str) -> Member:
        self.load(name)
        return self._members[name]

    def __contains__(self, name: object) -> bool:
        return name in self._members or name in _offered(self.group)

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys([*self._members, *_offered(self.group)])

    def __len__(self) -> int:
        return len({*self._members, *_offered(self.group)})


@cache
def _offered(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def _defined_anew(old: object, new: object) -> bool:
    """Whether both are classes of one name in one module."""
    if not (isinstance(old, type) and isinstance(new, type)):
        return False
    return (old.__module__, old.__qualname__) == (new.__module__, new.__qualname__)
