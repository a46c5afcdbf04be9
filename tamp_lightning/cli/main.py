"""The command line: `tamp run RECIPE`, and `lightning run RECIPE.yaml` which is the same."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

USAGE = """\
usage: tamp run RECIPE [--key=value ...]   do what a recipe says; keys override it
       tamp run RECIPE --help              every key, its meaning and default
       tamp run RECIPE --print_config      the complete recipe after overrides
       tamp evaluate --checkpoint X --benchmarks A,B [--key=value ...]
                                           score a checkpoint: `tamp run evaluate` with shorter names
       tamp inspect CHECKPOINT [--plan] [--method.key=value ...]
                                           blocks, linears, modalities, memory needed, and whether the method fits:
                                           reads headers only
       tamp export RUN_OR_CHECKPOINT --format bitmask|dense --out DIR [--values int8|int4]
                                           store a pruned checkpoint without its zeros, or turn that back
       tamp bench CHECKPOINT [--out FILE]  a pruned checkpoint dense and compressed: prefill, tokens/s, memory
       tamp report RUN [RUN ...] [--figures DIR] [--out FILE]
                                           a run's report.html anew, or several runs compared; figures for papers
       tamp recipes                        names of the shipped recipes
       tamp doctor                         versions, device, test bed, owner of the `lightning` script
RECIPE is a YAML file or the name of a shipped recipe, e.g. `tamp run llava_next_tamp --method.sparsity=0.6`."""

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `tamp` and `python -m tamp_lightning`; Ctrl-C ends it without a traceback."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # other libraries' bars fill a log; read when tqdm is imported
    try:
        _command(args)
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as exit_:
        # Lightning's trainer turns Ctrl-C into exit code 1
        if isinstance(exit_.__context__, KeyboardInterrupt):
            _interrupted()
        raise


def _command(args: list[str]) -> None:
    if args == ["recipes"]:
        from tamp_lightning.resources import recipe_names

        print("\n".join(recipe_names()))
    elif args == ["doctor"]:
        from tamp_lightning.cli.doctor import report

        print(report())
    elif args[:1] == ["inspect"] and len(args) >= 2:
        from tamp_lightning.cli.run import inspect_checkpoint

        inspect_checkpoint(args[1:])
    elif args[:1] in (["export"], ["report"]):
        from tamp_lightning.cli.run import export_checkpoint, report_runs

        (export_checkpoint if args[0] == "export" else report_runs)(args[1:])
    elif args[:1] == ["bench"]:
        from tamp_lightning.cli.run import bench_checkpoint

        bench_checkpoint(args[1:])
    elif args[:1] == ["evaluate"]:
        from tamp_lightning.cli.run import run

        run("evaluate", evaluate_overrides(args[1:]))
    elif len(args) >= 2 and args[0] == "run" and not args[1].startswith("-"):
        from tamp_lightning.cli.run import run

        run(args[1], args[2:])
    else:
        asked = args in ([], ["-h"], ["--help"], ["run", "-h"], ["run", "--help"])
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        sys.exit(0 if asked else 2)


def evaluate_overrides(args: Sequence[str]) -> list[str]:
    """Overrides of the `evaluate` recipe: `--checkpoint X` is its model, `--benchmarks A,B` a list."""
    overrides, rest = [], iter(args)
    for token in rest:
        key, equals, value = token.partition("=")
        if key in ("--checkpoint", "--benchmarks"):
            value = value if equals else next(rest, "")
            as_list = key == "--benchmarks" and value and not value.startswith("[")
            token = f"--model.checkpoint={value}" if key == "--checkpoint" else f"{key}={value}"
            token = f"{key}=[{value}]" if as_list else token
        overrides.append(token)
    return overrides


def _interrupted() -> None:
    print("interrupted", file=sys.stderr)
    sys.exit(INTERRUPTED)


def lightning_main() -> None:
    """Entry point of `lightning`: our recipes are ours, anything else goes to another installed `lightning`."""
    args = sys.argv[1:]
    if len(args) >= 2 and args[0] == "run" and args[1].endswith((".yaml", ".yml")):
        main(args)
        return
    scripts = entry_points(group="console_scripts", name="lightning")
    others = [e for e in scripts if e.module.partition(".")[0] != "tamp_lightning"]
    if not others:
        print("usage: lightning run RECIPE.yaml [--key=value ...] (no other `lightning` is installed)", file=sys.stderr)
        sys.exit(2)
    sys.exit(others[0].load()())
