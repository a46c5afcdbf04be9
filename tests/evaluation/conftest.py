"""Fixtures that ask questions."""

from ..fixtures.asking import _own_cache, run, trainer

__all__ = ["_own_cache", "run", "trainer"]
