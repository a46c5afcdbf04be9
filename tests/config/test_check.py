"""Values against the types of a recipe."""

import dataclasses
from typing import Any, Literal

import pytest

from tamp_lightning.config.check import Checker, all_keys, describe, did_you_mean, fits
from tamp_lightning.config.recipe_file import UsageError


def test_quoted_pattern_is_text_in_file_and_on_command_line():
    @dataclasses.dataclass
    class Patterns:
        pattern: Literal["row", "2:4"] = "row"

    Checker(Patterns, "file").mapping({"pattern": "2:4"})
    Checker(Patterns, "command line").option("pattern", "2:4")
    with pytest.raises(UsageError, match="pattern is '4:8', expected one of row, 2:4"):
        Checker(Patterns, "command line").option("pattern", "4:8")


@dataclasses.dataclass
class Inner:
    size: int = 1
    names: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Outer:
    inner: Inner = dataclasses.field(default_factory=Inner)
    many: dict[str, Inner] = dataclasses.field(default_factory=dict)
    row: list[Inner] = dataclasses.field(default_factory=list)
    limit: float | None = None
    free: dict[str, Any] = dataclasses.field(default_factory=dict)


GOOD = [(int, 3), (float, 3), (float, 0.5), (str, ""), (bool, False), (int | None, None), (list[int], [1, 2])]
GOOD += [(list[int], (1,)), (dict[str, Any], {}), (Literal["a", 2], 2), (Inner, Inner()), (Any, object())]
BAD = [(int, True), (int, 3.0), (float, True), (float, "3"), (str, None), (bool, 0), (int | None, "x")]
BAD += [(list[int], [1, "x"]), (list[int], "12"), (dict[str, Any], []), (Literal["a", 2], True), (Inner, Outer())]


@pytest.mark.parametrize(("hint", "value"), GOOD)
def test_values_that_fit(hint, value):
    assert fits(hint, value)


@pytest.mark.parametrize(("hint", "value"), BAD)
def test_values_that_do_not_fit(hint, value):
    assert not fits(hint, value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"inner": {"sise": 1}}, r"unknown key inner\.sise \(did you mean 'inner\.size'\?\)"),
        ({"inner": None}, "inner is None, expected a section with size, names"),
        ({"inner": {"names": ["a", 3]}}, r"inner\.names is \['a', 3\], expected a list, each text"),
        ({"many": {"x": {"size": "big"}}}, r"many\.x\.size is 'big', expected a whole number"),
        ({"row": [{}, {"zzz": 1}]}, r"unknown key row\.1\.zzz; row\.1 has size, names"),
        ({"limit": "much"}, "limit is 'much', expected a number or nothing"),
    ],
)
def test_a_fault_is_named_by_its_place_however_deep(content, complaint):
    with pytest.raises(UsageError, match=f"^a: {complaint}"):
        Checker(Outer, "a").mapping(content)


def test_what_is_free_is_free_and_what_is_right_passes():
    content = {"inner": {"size": 2}, "many": {"x": {}}, "row": [{"size": 3}], "limit": 2, "free": {"any": [object()]}}
    Checker(Outer, "a").mapping(content)
    for key, text in {"inner.size": "2", "limit": "null", "free.any.thing": "x", "inner.names+": "5"}.items():
        Checker(Outer, "a", "--").option(key, text)


def test_words():
    assert describe(list[float] | None) == "a list, each a number or nothing"
    assert all_keys(Inner, "inner.") == ["inner.size", "inner.names"]
    assert did_you_mean("size", ["inner.size", "seize"]) == " (did you mean 'inner.size'?)"
    assert did_you_mean("qqq", ["inner.size"]) == ""
