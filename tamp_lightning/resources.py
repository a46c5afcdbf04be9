"""Files that ship with the package: recipes, the weights of the test beds, tested versions."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

YAML = (".yaml", ".yml")


def _folder(name: str) -> Path:
    """`name` inside the package when installed, beside the package in a checkout."""
    package = Path(__file__).parent
    installed = package / f"_{name}"
    return installed if installed.is_dir() else package.parent / name


def data_folder() -> Path:
    """Folder of the shipped weights and cards."""
    return _folder("data")


def requirements_folder() -> Path:
    """Folder of floor.txt and lock.txt: the versions of other libraries that were tested."""
    return _folder("requirements")


def shipped_recipes() -> dict[str, Path]:
    """Shipped recipes by name, in order; the name is the file's, in whatever subfolder it lies."""
    return dict(sorted((p.stem, p) for p in _folder("recipes").rglob("*.yaml")))


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return list(shipped_recipes())


def find_recipe(name: str) -> Path:
    """A recipe by path, or a shipped one by its name or its path in a checkout.

    Raises:
        FileNotFoundError: there is none; the message names the nearest.
    """
    path, shipped = Path(name), shipped_recipes()
    if path.is_file():
        return path
    found = shipped.get(path.stem if path.suffix in YAML else path.name)
    if found and path.parent in (Path(), Path("recipes"), Path("recipes") / _below(found)):
        return found
    if name and path.is_dir():
        own = path / "recipe.yaml"
        remedy = f"that of its run is {own}" if own.is_file() else "give a file, or the name of a shipped one"
        raise FileNotFoundError(f"no recipe {name!r}: it is a folder; {remedy}")
    near = get_close_matches(path.stem, shipped, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise FileNotFoundError(f"no recipe {name!r}: {hint}shipped are {', '.join(shipped)}; or give a path")


def _below(recipe: Path) -> Path:
    return recipe.parent.relative_to(_folder("recipes"))


def cache_folder() -> Path:
    """Where assembled checkpoints are kept: `$TAMP_CACHE`, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TAMP_CACHE") or Path(base) / "tamp_lightning")
