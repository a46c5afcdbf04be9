"""From a recipe and overrides to typed objects, and to the work they describe."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, set_parsing_settings
from rich.console import Console
from rich.markup import escape

from tamp_lightning.cli.tested import untested
from tamp_lightning.config.aliases import modern, modern_option
from tamp_lightning.config.check import Checker, UsageError, did_you_mean, read_mapping, read_yaml
from tamp_lightning.config.plugins import load_members, load_plugins
from tamp_lightning.config.recipe import RECIPES
from tamp_lightning.errors import InputError
from tamp_lightning.methods.method import Method
from tamp_lightning.resources import find_recipe

PRINT = "--print_config"
PROCESSES = "tamp_lightning.distributed.processes"
"""Not imported here, for it is Lightning that takes seconds."""

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
        _note(f"{'; '.join(notes)}: the old name is still read, and will go")
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


def quieten() -> None:
    """Let libraries speak only when something is wrong: the run has its own progress bar and report."""
    from transformers.utils import logging as transformers_logging

    from tamp_lightning.compat.known_warnings import ignore_known_warnings

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ignore_known_warnings()


def is_refusal(error: Exception) -> bool:
    """Whether an error says what the user can put right; any other is a bug and keeps its traceback.

    Refusals are InputErrors, what the operating system refuses (no file, no space, no permission), and trainer
    settings that Lightning calls impossible.
    """
    return isinstance(error, InputError | OSError) or type(error).__name__ == "MisconfigurationException"


def run(name: str, overrides: Sequence[str]) -> None:
    """Do what a recipe says; bad input ends the program with one line and exit code 2, before anything is written."""
    with _all_processes(), refusals_in_one_line():
        recipe, path, text = parse(name, [o for o in overrides if o != PRINT])
        if PRINT in overrides:
            print(text, end="")
            return
        check_trainer(recipe.trainer)
        quieten()
        _dispatch(recipe, path.stem, text, Console())


def inspect_checkpoint(args: Sequence[str]) -> None:
    """Print what a checkpoint is and what of it would be pruned; exit code 2 if nothing would."""
    with refusals_in_one_line():
        parser = RecipeParser(prog="tamp inspect", description="What a checkpoint is, and what of it would be pruned.")
        parser.add_argument("checkpoint", help="folder or hub id")
        parser.add_argument("--model.include", type=list[str], default=[], help="as in a recipe")
        parser.add_argument("--model.exclude", type=list[str], default=[], help="as in a recipe")
        parser.add_class_arguments(Method, "method")
        parser.add_argument("--plan", action="store_true", help="seconds, memory, disk and traffic of a run")
        from tamp_lightning.tasks.forecast import Machine
        from tamp_lightning.tasks.inspect import run_inspect

        parser.add_class_arguments(Machine, "machine")
        options = parser.instantiate(parser.parse_args(list(args)))
        quieten()
        model, machine = options.model, options.machine if options.plan else None
        if not run_inspect(options.checkpoint, Console(), model.include, model.exclude, options.method, machine):
            sys.exit(2)


def export_checkpoint(args: Sequence[str]) -> None:
    """Write a checkpoint in another form, as `tamp export` is told to."""
    with refusals_in_one_line():
        parser = RecipeParser(prog="tamp export", description="Store a pruned checkpoint without its zeros, and back.")
        parser.add_argument("checkpoint", help="run folder, checkpoint folder or hub id")
        parser.add_argument("--format", required=True, help="bitmask, or dense to turn that back")
        parser.add_argument("--out", required=True, help="new folder; a killed export goes on there")
        options = parser.parse_args(list(args))
        from tamp_lightning.tasks.export import run_export

        quieten()
        run_export(options.checkpoint, options.format, Path(options.out), Console())


def bench_checkpoint(arguments: Sequence[str]) -> None:
    """Print what a pruned checkpoint takes, dense and compressed."""
    with refusals_in_one_line():
        from tamp_lightning.tasks.bench import bench

        quieten()
        bench(arguments, Console())


def report_runs(arguments: Sequence[str]) -> None:
    """Write the page of one run or of several, and print where it lies."""
    with refusals_in_one_line():
        from tamp_lightning.tasks.report import report

        page = report(arguments)
        Console().print(f"report: [bold]{escape(str(page))}[/bold]", soft_wrap=True, highlight=False)


@contextmanager
def refusals_in_one_line() -> Iterator[None]:
    """End the program with one line and exit code 2 on bad input; any other error keeps its traceback.

    Of several processes only the first to fail speaks.
    """
    try:
        yield
    except Exception as error:
        if not _speaks():
            sys.exit(2 if is_refusal(error) else 1)
        _say_untested()
        if not is_refusal(error):
            raise
        line = escape(" ".join(str(error).split()))
        Console(stderr=True).print(f"[bold red]error[/bold red]: {line}", soft_wrap=True, highlight=False)
        sys.exit(2)


def _say_untested() -> None:
    """A run that fails with libraries that were not tested says so before anything else."""
    if strange := untested():
        _note(f"not tested with {', '.join(strange)}; `make setup` in a checkout installs what was")


def _note(line: str) -> None:
    if _speaks():
        Console(stderr=True).print(f"[bold yellow]note[/bold yellow]: {escape(line)}", soft_wrap=True, highlight=False)


@contextmanager
def _all_processes() -> Iterator[None]:
    """End all processes when this one fails; before Lightning is there, there is but one."""
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        if isinstance(code, int) and code and PROCESSES in sys.modules:
            sys.modules[PROCESSES].end_others(code)
        raise


def _speaks() -> bool:
    return PROCESSES not in sys.modules or sys.modules[PROCESSES].speaks()


def _dispatch(recipe: Any, name: str, text: str, console: Console) -> None:
    if recipe.task == "prune":
        from tamp_lightning.tasks.prune import run_prune

        run_prune(recipe, name, text, console)
    elif recipe.task == "compare":
        from tamp_lightning.tasks.compare import run_compare

        run_compare(recipe, console)
    elif recipe.task == "evaluate":
        from tamp_lightning.tasks.evaluate import run_evaluate

        run_evaluate(recipe, console)
    elif recipe.task == "finetune":
        from tamp_lightning.tasks.finetune import run_finetune

        run_finetune(recipe, name, text, console)
    else:
        from tamp_lightning.tasks.train_testbed import run_train_bed

        run_train_bed(recipe, console)
