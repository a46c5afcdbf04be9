"""The commands of `tamp`: from their arguments to the work."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from tamp_lightning.cli.parsing import PRINT, RecipeParser, check_trainer, parse
from tamp_lightning.cli.refusals import all_processes, refusals_in_one_line
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.selection import Selection


def run(name: str, overrides: Sequence[str]) -> None:
    """Do what a recipe says; bad input ends the program with one line and exit code 2, before anything is written."""
    with all_processes(), refusals_in_one_line():
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
        wanted = Selection(options.model.include, options.model.exclude)
        machine = options.machine if options.plan else None
        if not run_inspect(options.checkpoint, Console(), wanted, options.method, machine):
            sys.exit(2)


def export_checkpoint(args: Sequence[str]) -> None:
    """Write a checkpoint in another form, as `tamp export` is told to."""
    with refusals_in_one_line():
        parser = RecipeParser(prog="tamp export", description="Store a pruned checkpoint without its zeros, and back.")
        parser.add_argument("checkpoint", help="run folder, checkpoint folder or hub id")
        parser.add_argument("--format", required=True, help="bitmask, or dense to turn that back")
        parser.add_argument("--out", required=True, help="new folder; a killed export goes on there")
        parser.add_argument(
            "--values",
            default="none",
            help="int8 or int4: round what is kept to so many bits; default: none, all bits stay",
        )
        options = parser.parse_args(list(args))
        from tamp_lightning.tasks.export import run_export

        quieten()
        run_export(options.checkpoint, options.format, Path(options.out), Console(), options["values"])


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


def quieten() -> None:
    """Let libraries speak only when something is wrong: the run has its own progress bar and report."""
    from transformers.utils import logging as transformers_logging

    from tamp_lightning.compat.known_warnings import ignore_known_warnings

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ignore_known_warnings()


def _dispatch(recipe: Any, name: str, text: str, console: Console) -> None:
    if recipe.task == "prune":
        from tamp_lightning.tasks.prune import run_prune
        from tamp_lightning.tasks.prune_setup import prepare

        job = prepare(recipe, name, text, lambda line: console.print(line, soft_wrap=True, highlight=False))
        run_prune(job, console)
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
