"""Bad input ends in one line, bugs keep their traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from tamp_lightning.cli import main as cli
from tamp_lightning.cli.parsing import parse
from tamp_lightning.cli.refusals import is_refusal
from tamp_lightning.config.check import Checker

from .conftest import SHIPPED


@pytest.mark.parametrize("error", [FileExistsError("runs/a is there"), PermissionError(13, "Denied", "runs")])
def test_refusals_of_the_system_are_one_line(tamp, work, error):
    def fail():
        raise error

    work(fail)
    code, _, err = tamp("run", SHIPPED)
    assert (code, err) == (2, f"error: {error}\n")


def test_own_value_error_is_one_line_with_brackets_kept(tamp, work):
    def fail():
        Checker(parse(SHIPPED, [])[0].__class__, "deep inside").mapping({"seed": "[red]"})

    work(fail)
    assert tamp("run", SHIPPED)[2] == "error: deep inside: seed is '[red]', expected a whole number\n"


@pytest.mark.parametrize("bug", [lambda: 1 / 0, lambda: int("x"), lambda: {}["a"]], ids=["zero", "value", "key"])
def test_bugs_keep_their_traceback(work, bug):
    work(bug)
    with pytest.raises((ArithmeticError, ValueError, KeyError)):
        cli.main(["run", SHIPPED])


BUGS = {
    "int": 'int("x")',
    "zip": "list(zip([1], [1, 2], strict=True))",
    "unpacking": "first, second = [1]",
    "index": "[].index(1)",
    "value": 'raise ValueError("the shapes do not agree")',
}


@pytest.mark.parametrize("line", BUGS.values(), ids=BUGS)
def test_bugs_of_our_own_code_are_no_bad_input(work, line):
    """The code runs as if it stood in a file of the package, which is what once made it look like a refusal."""
    inside = str(Path(is_refusal.__code__.co_filename).with_name("inside.py"))
    names: dict = {}
    exec(compile(f"def bug():\n    {line}", inside, "exec"), names)
    work(names["bug"])
    with pytest.raises(ValueError) as error:  # noqa: PT011, each has a message of its own
        cli.main(["run", SHIPPED])
    assert Path(str(error.traceback[-1].path)) == Path(inside)


def test_a_bug_exits_1_with_a_traceback():
    code = "from tamp_lightning.cli import run, main; run._dispatch = lambda *_: int('x')\n"
    code += f"main.main(['run', {SHIPPED!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ValueError: invalid literal" in done.stderr
