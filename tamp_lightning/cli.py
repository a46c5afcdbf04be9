"""The command line: `tamp run RECIPE`, and `lightning run RECIPE.yaml` which is the same."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

USAGE = """\
usage: tamp run RECIPE [--key=value ...]   do what a recipe says; keys override it
       tamp run RECIPE --help              every key, its meaning and default
       tamp run RECIPE --print_config      the complete recipe after overrides
       tamp recipes                        names of the shipped recipes
RECIPE is a YAML file or the name of a shipped recipe, e.g. `tamp run llava_next_tamp --method.sparsity=0.6`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `tamp` and `python -m tamp_lightning`."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    if args == ["recipes"]:
        from tamp_lightning.resources import recipe_names

        print("\n".join(recipe_names()))
    elif len(args) >= 2 and args[0] == "run" and not args[1].startswith("-"):
        from tamp_lightning.run import run

        run(args[1], args[2:])
    else:
        asked = args in ([], ["-h"], ["--help"])
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        sys.exit(0 if asked else 2)


def lightning_main() -> None:
    """Entry point of `lightning`: our recipes are ours, anything else goes to another installed `lightning`."""
    args = sys.argv[1:]
    if len(args) >= 2 and args[0] == "run" and args[1].endswith((".yaml", ".yml")):
        main(args)
        return
    others = [
        e for e in entry_points(group="console_scripts", name="lightning") if not e.value.startswith("tamp_lightning.")
    ]
    if not others:
        print("usage: lightning run RECIPE.yaml [--key=value ...] (no other `lightning` is installed)", file=sys.stderr)
        sys.exit(2)
    others[0].load()()
