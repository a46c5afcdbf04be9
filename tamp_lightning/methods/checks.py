"""What constants of methods may be, said in one way."""

from __future__ import annotations

from collections.abc import Sequence

from tamp_lightning.errors import InputError


def check_at_least_zero(section: str, rule: object, name: str) -> None:
    """Raise InputError unless a field of a section is a finite number of at least 0."""
    value = getattr(rule, name)
    if not 0 <= value < float("inf"):
        raise InputError(f"{section}.{name} is {value}; it has to be a finite number, at least 0.")


def check_at_least(least: int, place: str, section: object, *names: str) -> None:
    """Raise InputError unless fields of a section are at least a number; None passes. `place` stands before a name."""
    for name in names:
        value = getattr(section, name)
        if value is not None and not value >= least:
            raise InputError(f"{place}{name} is {value}; it has to be at least {least}")


def check_above_zero(section: str, rule: object, name: str, such_as: str) -> None:
    """Raise InputError unless a field of a section is a finite number above 0."""
    value = getattr(rule, name)
    if not 0 < value < float("inf"):
        raise InputError(f"{section}.{name} is {value}; it has to be above 0, such as {such_as}.")


def check_share(section: str, share: float, such_as: str = "0.2") -> None:
    """Raise InputError unless a section's share of the all-token Hessian is from 0 to 1."""
    if not 0 <= share <= 1:
        raise InputError(f"{section}.share is {share}; it has to be from 0 to 1, such as {such_as}.")


def check_one_of(section: str, rule: object, name: str, allowed: Sequence[str]) -> None:
    """Raise InputError unless a field of a section is one of some words."""
    value = getattr(rule, name)
    if value not in allowed:
        *others, last = allowed
        raise InputError(f"{section}.{name} is {value!r}; it has to be {', '.join(others)} or {last}.")
