"""The examples in docstrings say what happens."""

import doctest
from importlib import import_module

import pytest

from .test_imports import NAMES

ROOMS = ("tamp_lightning.ops.", "tamp_lightning.metrics.")
MODULES = [name for name in NAMES if name.startswith(ROOMS)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_there_are_some():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in MODULES for test in finder.find(import_module(name)) if test.examples]
    assert len(found) >= 6
