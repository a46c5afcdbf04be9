"""From a recipe and overrides to typed objects."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, set_parsing_settings

from tamp_lightning.cli.refusals import note
from tamp_lightning.config.aliases import modern, modern_option
from tamp_lightning.config.check import Checker, did_you_mean
from tamp_lightning.config.plugins import load_members, load_plugins
from tamp_lightning.config.recipe import RECIPES
from tamp_lightning.config.recipe_file import UsageError, read_mapping, read_yaml
from tamp_lightning.errors import InputError
from tamp_lightning.resources import find_recipe

PRINT = "--print_config"

set_parsing_settings(docstring_parse_attribute_docstrings=True)


class RecipeParser(ArgumentParser):
    """Parser whose errors are exceptions."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the whole usage."""
        raise UsageError(message)


def build_parser(task: str, name: str) -> RecipeParser:
    """Parser of the recipes of one task; `name` is shown in its help."""
    parser = RecipeParser(
        prog=f"tamp run {name}",
        usage=f"tamp run {name} [--key=value ...] [{PRINT}]",
        description=RECIPES[task].__doc__,
        epilog=f"{PRINT} shows the complete recipe after overrides and does nothing else.",
        print_config=None,
    )
    parser.add_argument("--config", action="config", help=argparse.SUPPRESS)
    parser.add_class_arguments(RECIPES[task], as_group=False)
    return parser


def task_of(content: dict[str, Any], place: str) -> str:
    """The `task` of a recipe, prune by default.

    Raises:
        UsageError: there is no such task.
    """
    task = content.get("task", "prune")
    if not isinstance(task, str) or task not in RECIPES:
        near = did_you_mean(str(task), list(RECIPES))
        raise UsageError(f"{place}: task is {task!r}, expected one of {', '.join(RECIPES)}{near}")
    return task


def pairs(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Key and value of each override, from `--key=value` or `--key value`.

    Raises:
        UsageError: something else stands there.
    """
    rest = iter(overrides)
    for token in rest:
        key, equals, value = token.partition("=")
        if not key.startswith("--") or key == "--":
            raise UsageError(f"command line: {token!r} is no override; write --key=value")
        if not equals:
            value = next(rest, "--")
            if value.startswith("--"):
                raise UsageError(f"command line: {key} needs a value; write {key}=VALUE")
        yield key.removeprefix("--"), value


def parse(name: str, overrides: Sequence[str]) -> tuple[Any, Path, str]:
    """The typed recipe, its file, and the complete recipe as YAML.

    Args:
        name: path of a recipe, or name of a shipped one.
        overrides: `--key=value` or `--key value`; `--help` prints the keys and exits.

    Raises:
        UsageError: unknown recipe, key or value; one line with what is allowed.
    """
    try:
        path = find_recipe(name)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None
    notes: list[str] = []
    content = modern(read_mapping(path), notes)
    task = task_of(content, path.name)
    asked = {"-h", "--help"} & set(overrides)
    given = [] if asked else [modern_option(key, value, notes) for key, value in pairs(overrides)]
    _load_choices(content, given)
    parser = build_parser(task, name)
    if asked:
        parser.print_help()
        sys.exit(0)
    Checker(RECIPES[task], path.name).mapping(content)
    for key, value in given:
        Checker(RECIPES[task], "command line", "--").option(key, value)
    try:
        source = yaml.safe_dump(content) if notes else path  # renamed keys are in the content alone
        config = parser.parse_args([f"--config={source}", *(f"--{key}={value}" for key, value in given)])
        built = parser.instantiate(config)
        recipe = RECIPES[task](**{f.name: built[f.name] for f in dataclasses.fields(RECIPES[task])})
    except InputError as error:
        place = "command line" if _overridden(str(error), given) else path.name
        raise UsageError(f"{place}: {error}") from None
    if notes:
        note(f"{'; '.join(notes)}: the old name is still read, and will go")
    return recipe, path, parser.dump(config, skip_unset=False)


def _load_choices(content: Mapping[str, Any], given: Sequence[tuple[str, str]]) -> None:
    """Import what the recipe's plugins and names of choices ask for, so that the parser knows their constants."""
    named = content.get("plugins")
    plugins = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    for key, value in given:
        if key.removesuffix("+") == "plugins":
            more = [value] if key.endswith("+") and not value.startswith("[") else read_yaml(value)
            plugins = (plugins if key.endswith("+") else []) + (more if isinstance(more, list) else [])
    load_plugins(plugins)
    methods = content.get("methods")
    for method in [content.get("method"), *(methods.values() if isinstance(methods, dict) else ())]:
        load_members(method)
    load_members({key.removeprefix("method."): value for key, value in given})


def _overridden(complaint: str, given: Sequence[tuple[str, str]]) -> bool:
    """Whether the refused key stands on the command line: a complaint starts with the key, or its last parts."""
    refused = complaint.partition(" ")[0]
    return any(key == refused or key.endswith(f".{refused}") for key, _ in given)


def check_trainer(arguments: dict[str, Any]) -> None:
    """Refuse a `trainer:` section with a key that lightning.Trainer does not have.

    Raises:
        UsageError: names the key and the nearest.
    """
    if arguments:
        import lightning

        known = list(inspect.signature(lightning.Trainer).parameters)
        for key in arguments:
            if key not in known:
                near = did_you_mean(f"trainer.{key}", [f"trainer.{k}" for k in known])
                raise UsageError(f"unknown key trainer.{key}{near}; lightning.Trainer has no such argument")
