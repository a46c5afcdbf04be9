"""Code that a recipe names: files and modules that register solvers, token rules and the like."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from tamp_lightning.errors import InputError
from tamp_lightning.methods.method import CHOICES


def load_plugins(names: Iterable[str]) -> None:
    """Import every file (`my_solver.py`, by path) or module (`my_package.solvers`) once.

    Raises:
        InputError: there is no such file or module. What their own code raises passes as it is.
    """
    for name in names:
        if name.endswith(".py"):
            _load_file(Path(name))
        else:
            _load_module(name)


def load_members(method: Any) -> None:
    """Import what other packages offer under the names that a recipe's method section uses."""
    if isinstance(method, Mapping):
        for choice, registry in CHOICES.items():
            registry.load(method.get(choice))


def contents(names: Sequence[str]) -> dict[str, str | None]:
    """Plug-in -> sha256 of its file; None for modules."""
    files = {name: Path(name) for name in names if name.endswith(".py")}
    digests = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items() if file.is_file()}
    return {name: digests.get(name) for name in names}


def _load_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"plugins has {str(path)!r}, which is no file: paths are relative to the working folder")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"tamp_plugin_{path.stem}_{digest}"
    if name in sys.modules:
        return
    spec = spec_from_file_location(name, path)
    assert spec is not None  # its name ends in .py
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _load_module(name: str) -> None:
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and imports another that is not
        raise InputError(f"plugins has {name!r}, which is no installed module; a file is named by its path") from None
