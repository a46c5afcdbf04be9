"""From a recipe and overrides to typed objects, and to the work they describe."""

from __future__ import annotations

import dataclasses
import logging
import re
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, set_parsing_settings
from rich.console import Console

from tamp_lightning.recipe import RECIPES
from tamp_lightning.resources import find_recipe

set_parsing_settings(docstring_parse_attribute_docstrings=True)


class UsageError(Exception):
    """Something the user can put right; shown as one line, exit code 2."""


class RecipeParser(ArgumentParser):
    """Parser whose errors are one line and name the nearest key."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the whole usage."""
        line = " ".join(message.split())
        unknown = re.search(
            r"(?:[Kk]ey|option|[Uu]nrecognized arguments:|does not accept(?: nested)? key) ['\"]?-*([\w.]+)", line
        )
        near = get_close_matches(unknown.group(1), self.keys(), n=1) if unknown else []
        raise UsageError(line + (f" (did you mean {near[0]!r}?)" if near else ""))

    def keys(self) -> list[str]:
        """Every key the recipe knows."""
        return [a.dest for a in self._actions]


def build_parser(task: str, prog: str) -> RecipeParser:
    """Parser of the recipes of one task."""
    parser = RecipeParser(prog=prog, description=RECIPES[task].__doc__, exit_on_error=True)
    parser.add_argument("--config", action="config", help="The recipe itself.")
    parser.add_class_arguments(RECIPES[task], as_group=False)
    return parser


def task_of(path: Path) -> str:
    """The `task` of a recipe file.

    Raises:
        UsageError: no YAML mapping, or an unknown task.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{path} is no readable YAML: {' '.join(str(error).split())}") from None
    task = content.get("task", "prune") if isinstance(content, dict) else None
    if task not in RECIPES:
        raise UsageError(f"{path}: task is {task!r}, expected one of {', '.join(RECIPES)}")
    return task


def parse(name: str, overrides: Sequence[str]) -> tuple[Any, Path, str]:
    """The typed recipe, its file, and the complete recipe as YAML.

    Raises:
        UsageError: unknown recipe, key or value; one line with what is allowed.
    """
    try:
        path = find_recipe(name)
        task = task_of(path)
        parser = build_parser(task, f"tamp run {name}")
        config = parser.parse_args([f"--config={path}", *overrides])
        built = parser.instantiate(config)
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from None
    fields = {f.name: built[f.name] for f in dataclasses.fields(RECIPES[task])}
    return RECIPES[task](**fields), path, parser.dump(config, skip_none=False)


def quieten() -> None:
    """Let libraries speak only when something is wrong: the run has its own progress bar and report."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for category, text in (
        (UserWarning, r".*does not have many workers.*"),
        (UserWarning, r".*Found .* module\(s\) in eval mode.*"),
        (UserWarning, r".*GPU available but not used.*"),
        (FutureWarning, r".*LeafSpec.*"),
    ):
        warnings.filterwarnings("ignore", message=text, category=category)


def run(name: str, overrides: Sequence[str]) -> None:
    """Do what a recipe says; bad input ends the program with one line and exit code 2."""
    console = Console()
    try:
        recipe, path, text = parse(name, overrides)
        quieten()
        _dispatch(recipe, path.stem, text, console)
    except (UsageError, ValueError, FileNotFoundError) as error:
        Console(stderr=True).print(f"[bold red]error[/bold red]: {error}", soft_wrap=True, highlight=False)
        sys.exit(2)


def _dispatch(recipe: Any, name: str, text: str, console: Console) -> None:
    if recipe.task == "prune":
        from tamp_lightning.engine.prune import run_prune

        run_prune(recipe, name, text, console)
    elif recipe.task == "evaluate":
        from tamp_lightning.engine.evaluate import run_evaluate

        run_evaluate(recipe, console)
    else:
        from tamp_lightning.engine.train_bed import run_train_bed

        run_train_bed(recipe, console)
