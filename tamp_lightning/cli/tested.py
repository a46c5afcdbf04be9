"""Which versions of other libraries this package was tested with, and which of those installed lie outside."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

from tamp_lightning.resources import requirements_folder


def pins(name: str) -> dict[str, str]:
    """Distribution -> version, from the lines `distribution==version` of requirements/NAME.txt."""
    lines = (requirements_folder() / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    found = (line.partition("==") for line in lines if "==" in line and not line.startswith("#"))
    return {distribution.strip().lower().replace("_", "-"): pin.strip() for distribution, _, pin in found}


def known_range() -> dict[str, tuple[str, str]]:
    """Direct dependency -> oldest and newest version on which the whole quick suite passed."""
    newest = pins("lock")
    return {name: (oldest, newest[name]) for name, oldest in pins("floor").items()}


def installed(name: str) -> str | None:
    """Version of an installed distribution."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def outside(tested: Mapping[str, tuple[str, str]], found: Mapping[str, str | None]) -> list[str]:
    """What is installed outside of the tested range, such as `transformers 6.0.0 (tested: 5.20.0 to 5.24.0)`.

    A build's local part (`2.13.0+cpu`) does not count; what is not installed is not outside.
    """
    return [
        f"{name} {have} (tested: {oldest} to {newest})"
        for name, (oldest, newest) in tested.items()
        if (have := found.get(name)) and not Version(oldest) <= Version(Version(have).public) <= Version(newest)
    ]


def untested() -> list[str]:
    """Installed libraries outside of the tested range: see `outside`."""
    tested = known_range()
    return outside(tested, {name: installed(name) for name in tested})
