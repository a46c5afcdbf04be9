"""Fixtures that ask questions."""

from ..benchmarks.conftest import _own_cache, run, trainer

__all__ = ["_own_cache", "run", "trainer"]
