"""Members by name: registered, offered by other packages, refused."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest

from tamp_lightning import registry
from tamp_lightning.registry import Registry


@pytest.fixture
def colours(monkeypatch):
    """A registry with one member, and one that another package offers."""
    offered = {"blue": EntryPoint("blue", "fractions:Fraction", "colours")}
    monkeypatch.setattr(registry, "_offered", lambda group: offered if group == "colours" else {})
    made = Registry("colour", "colours")

    @made.register("red")
    @dataclass(frozen=True)
    class Red:
        pass

    return made


def test_a_member_is_found_by_its_name_and_another_packages_only_when_asked_for(colours):
    assert list(colours) == ["red", "blue"]
    assert list(colours.loaded()) == ["red"]
    assert colours.find("blue").__name__ == "Fraction"
    assert list(colours.loaded()) == ["red", "blue"]
    assert "green" not in colours
    with pytest.raises(ValueError, match=r"colour is 'bleu'; it has to be one of red, blue\. Did you mean blue\?"):
        colours.find("bleu")


def test_watchers_hear_of_every_registration(colours):
    heard = []
    colours.watchers.append(lambda: heard.append(list(colours.loaded())))
    colours.find("blue")
    assert heard == [["red", "blue"]]


def test_a_name_belongs_to_one_member_which_may_be_defined_anew(colours):
    with pytest.raises(ValueError, match=r"colour 'red' is registered already, as .*Red.*: choose another name"):
        colours.add("red", int)
    old = colours["red"]
    new = type("Red", (), {"__module__": old.__module__, "__qualname__": old.__qualname__})
    colours.add("red", new)
    assert colours["red"] is new


@pytest.mark.parametrize("name", ["2:4", "my solver", "a.b", ""])
def test_a_name_has_to_be_a_key(colours, name):
    with pytest.raises(ValueError, match="cannot be registered: use letters"):
        colours.add(name, int)
