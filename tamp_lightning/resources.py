"""Files that ship with the package: recipes and the weights of the test beds."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path


def _folder(name: str) -> Path:
    """`name` beside the package in a checkout, inside the package when installed."""
    package = Path(__file__).parent
    checkout = package.parent / name
    return checkout if (package.parent / "pyproject.toml").is_file() else package / f"_{name}"


def data_folder() -> Path:
    """Folder of the shipped weights and cards."""
    return _folder("data")


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(p.stem for p in _folder("recipes").glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """A recipe by path, or a shipped one by its name or its path in a checkout.

    Raises:
        FileNotFoundError: there is none; the message names the nearest.
    """
    path = Path(name)
    shipped = _folder("recipes") / f"{path.stem}.yaml"
    if path.is_file():
        return path
    if shipped.is_file() and path.parent.name in ("", "recipes") and path.suffix in ("", ".yaml", ".yml"):
        return shipped
    near = get_close_matches(path.stem, recipe_names(), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise FileNotFoundError(f"no recipe {name!r}: {hint}shipped are {', '.join(recipe_names())}; or give a path")


def cache_folder() -> Path:
    """Where assembled checkpoints are kept: `$TAMP_CACHE`, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TAMP_CACHE") or Path(base) / "tamp_lightning")
