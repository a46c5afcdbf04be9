"""Values against the types of a recipe."""

import dataclasses
from typing import Literal

import pytest

from tamp_lightning.config.check import Checker
from tamp_lightning.config.recipe_file import UsageError


def test_quoted_pattern_is_text_in_file_and_on_command_line():
    @dataclasses.dataclass
    class Patterns:
        pattern: Literal["row", "2:4"] = "row"

    Checker(Patterns, "file").mapping({"pattern": "2:4"})
    Checker(Patterns, "command line").option("pattern", "2:4")
    with pytest.raises(UsageError, match="pattern is '4:8', expected one of row, 2:4"):
        Checker(Patterns, "command line").option("pattern", "4:8")
