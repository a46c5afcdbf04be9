"""Tells transformers of the bitmask form when `tamp_lightning` is imported, without importing transformers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

LOADER = "transformers.modeling_utils"
QUANTIZER = "tamp_lightning.export.quantizer"


class _Watch(MetaPathFinder):
    """Registers the quantizer as soon as transformers' loader of models has been imported; earlier it cannot be."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Let the others find the loader, and act once it has run."""
        if fullname != LOADER:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            run(module)
            import_module(QUANTIZER)

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec


def register() -> None:
    """Register the quantizer: now if transformers' loader is there, else when it comes."""
    if LOADER in sys.modules:
        import_module(QUANTIZER)
    elif not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())
