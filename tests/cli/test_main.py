"""The command line: usage, the two scripts, exit codes."""

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from tamp_lightning.cli import main as cli

from .conftest import SHIPPED


@pytest.mark.parametrize(("args", "code"), [([], 0), (["-h"], 0), (["run", "-h"], 0), (["run"], 2), (["prun", "x"], 2)])
def test_usage(tamp, args, code):
    got, out, err = tamp(*args)
    assert got == code
    assert (err if code else out).startswith("usage: tamp run RECIPE")


def interrupted():
    raise KeyboardInterrupt


def interrupted_in_trainer():
    try:
        interrupted()
    except KeyboardInterrupt:
        sys.exit(1)


@pytest.mark.parametrize("function", [interrupted, interrupted_in_trainer])
def test_interrupt_exits_130(tamp, work, function):
    work(function)
    assert tamp("run", SHIPPED) == (130, "", "interrupted\n")


@pytest.fixture
def lightning(monkeypatch, capsys):
    """Runs the `lightning` script beside the given other owners of that name."""

    def call(*args: str, others: tuple[str, ...] = ()) -> tuple[int, str, str]:
        ours = "tamp_lightning.cli.main:lightning_main"
        owners = EntryPoints(EntryPoint("lightning", value, "console_scripts") for value in (ours, *others))
        monkeypatch.setattr(cli, "entry_points", owners.select)
        monkeypatch.setattr(sys, "argv", ["lightning", *args])
        try:
            cli.lightning_main()
        except SystemExit as exit_:
            return (exit_.code or 0, *capsys.readouterr())
        return (0, *capsys.readouterr())

    return call


def test_lightning_run_of_a_recipe_is_ours(lightning):
    code, out, _ = lightning("run", "recipes/llava_next_tamp.yaml", "--print_config", others=("platform:node",))
    assert code == 0
    assert out.startswith("task: prune")


@pytest.mark.parametrize("args", [(), ("run",), ("run", "model"), ("login",), ("--help",)])
def test_anything_else_goes_to_the_other_lightning(lightning, args, tmp_path, monkeypatch):
    (tmp_path / "other_lightning.py").write_text(
        "import sys\ndef main():\n    print('other', *sys.argv[1:])\n    return 7\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert lightning(*args, others=("other_lightning:main",)) == (7, " ".join(("other", *args)) + "\n", "")


def test_without_another_lightning_there_is_a_usage_line(lightning):
    code, _, err = lightning("login")
    assert code == 2
    assert err.startswith("usage: lightning run RECIPE.yaml")
    assert err.count("\n") == 1


def test_the_module_is_the_program():
    done = subprocess.run(
        [sys.executable, "-m", "tamp_lightning", "recipes"], capture_output=True, text=True, check=True
    )
    assert SHIPPED in done.stdout.split()
