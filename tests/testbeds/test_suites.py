"""Which suite a name means, and for whom it is made."""

import pytest

from tamp_lightning.testbeds import suites
from tamp_lightning.testbeds.suites import SUITES, build_suite


def processor(kind):
    return type(kind, (), {})()


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_told_what_is_asked(monkeypatch, name):
    _, kind, shown = SUITES[name]
    monkeypatch.setitem(suites.SUITES, name, (lambda *given: given, kind, shown))
    one = processor(kind)
    assert build_suite(name, one, "selection", "demo") == (one, "selection", "demo", "own")
    assert build_suite(name, one, "test", "full", shown[-1]) == (one, "test", "full", shown[-1])
    with pytest.raises(ValueError, match=f"{name} needs a checkpoint with a {kind}, this one has Other: choose none"):
        build_suite(name, processor("Other"), "test", "full")
    with pytest.raises(ValueError, match=f"controls has 'upside_down', {name} has {', '.join(shown[1:])}"):
        build_suite(name, one, "test", "full", "upside_down")


def test_none_is_none():
    assert build_suite("none", processor("Other"), "test", "full") is None
