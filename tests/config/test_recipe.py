"""Every shipped recipe is read by the real parser."""

import re

import pytest

from tamp_lightning.cli.parsing import parse
from tamp_lightning.config.recipe import RECIPES
from tamp_lightning.resources import shipped_recipes

SHIPPED = shipped_recipes()


def test_some_recipes_ship_and_names_are_unique():
    files = list(next(iter(SHIPPED.values())).parents[0].rglob("*.yaml"))
    assert len(files) == len(SHIPPED) > 2


@pytest.mark.parametrize("name", SHIPPED)
def test_parses(name):
    recipe, path, _ = parse(name, [])
    assert path == SHIPPED[name]
    assert isinstance(recipe, tuple(RECIPES.values()))


@pytest.mark.parametrize("name", SHIPPED)
def test_complete_form_is_the_same_recipe(name, tmp_path):
    recipe, _, text = parse(name, [])
    complete = tmp_path / "complete.yaml"
    complete.write_text(text)
    assert parse(str(complete), [])[0] == recipe


@pytest.mark.parametrize("name", SHIPPED)
def test_header_says_how_to_run_it(name):
    lines = SHIPPED[name].read_text().splitlines()
    assert len(lines) <= 45
    header = [line for line in lines if line.startswith("#")]
    commands = re.findall(r"tamp run (\S+)(.*)", "\n".join(header))
    assert name in [command for command, _ in commands]
    for command, overrides in commands:
        parse(command, overrides.split())
