"""The command line: what is refused and how, overrides, the two scripts, exit codes."""

import dataclasses
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Literal

import pytest

import tamp_lightning.cli.run as run_module
from tamp_lightning.cli import doctor
from tamp_lightning.cli import main as cli
from tamp_lightning.cli.parsing import check_trainer, parse
from tamp_lightning.cli.refusals import is_refusal
from tamp_lightning.config.check import Checker
from tamp_lightning.config.recipe_file import UsageError

SHIPPED = "llava_next_tamp"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Writes `my.yaml` into an otherwise empty working folder and gives its name."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        (tmp_path / "my.yaml").write_text(text)
        return "my.yaml"

    return write


@pytest.fixture
def tamp(capsys):
    """Runs the program; gives exit code, stdout, stderr."""

    def call(*args: str) -> tuple[int, str, str]:
        code = 0
        try:
            cli.main(args)
        except SystemExit as exit_:
            code = exit_.code
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def work(monkeypatch):
    """Replaces what a run does by a function."""

    def put(function):
        monkeypatch.setattr(run_module, "_dispatch", lambda *_: function())

    return put


IN_FILE = {
    "method: {tokens: amea}": "method.tokens is 'amea', expected one of all, amia, ",
    "method: {sparsity: fifty}": "method.sparsity is 'fifty', expected a number",
    "method: {sparsity: true}": "method.sparsity is True, expected a number",
    "method: {amia: {neighbors: 2.5}}": "method.amia.neighbors is 2.5, expected a whole number",
    "method: {das: {positive_only: maybe}}": "method.das.positive_only is 'maybe', expected true or false",
    "method: {pattern: 2:4}": "method.pattern is 124, which is how YAML reads an unquoted 2:4; write '2:4' in quotes",
    "method: {tokn: amia}": "unknown key method.tokn (did you mean 'method.tokens'?)",
    "methd: {}": "unknown key methd (did you mean 'method'?)",
    "sparsity: 0.5": "unknown key sparsity (did you mean 'method.sparsity'?)",
    "1: 2": "unknown key 1; a recipe has task, model,",
    "method: 3": "method is 3, expected a section with sparsity, tokens,",
    "method:": "method is None, expected a section with sparsity,",
    "method: {amia: 4}": "method.amia is 4, expected a section with neighbors,",
    "model: {checkpoint: null}": "model.checkpoint is None, expected text",
    "model: {include: abc}": "model.include is 'abc', expected a list, each text",
    "trainer: 3": "trainer is 3, expected a section (keys and values)",
    "out: 5": "out is 5, expected text or nothing; put it in quotes",
    "out: 2026-01-01": "out is datetime.date(2026, 1, 1), expected text or nothing; put it in quotes",
    "task: prun": "task is 'prun', expected one of prune, compare, evaluate, train_bed, finetune (did you mean 'prune'",
    "task: [a]": "task is ['a'], expected one of",
    "seed: 1\nseed: 2": "key seed stands twice",
    "method: {sparsity: 0.5, sparsity: 0.6}": "key method.sparsity stands twice",
    "method: {sparsity: 1.5}": "sparsity is 1.5",
    "method: {das: {floor: 0.9}}": "das.floor is 0.9",
    "calibration: {samples: 0}": "calibration.samples is 0",
    "": " is empty; a recipe starts with `task: prune`",
    "[1, 2]": " is [1, 2]; a recipe is keys and values",
    "hello": " is 'hello'; a recipe is keys and values",
    "a: b: c": " is no readable YAML: mapping values are not allowed here in line 1, column 5: a: b: c ^",
    "\tx: 1": " is no readable YAML: while scanning",
    "\x00": " is no readable YAML: unacceptable character",
}


@pytest.mark.parametrize(("text", "complaint"), IN_FILE.items(), ids=IN_FILE)
def test_bad_file_is_one_line_and_nothing_written(recipe, tamp, tmp_path, text, complaint):
    code, out, err = tamp("run", recipe(text))
    expected = complaint.removesuffix(", ")
    start = f"error: my.yaml{'' if complaint[0] == ' ' else ': '}{expected}"
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == ["my.yaml"]


ON_COMMAND_LINE = {
    "--method.tokens=amea": "--method.tokens is 'amea', expected one of all, amia",
    "--method.sparsity fifty": "--method.sparsity is 'fifty', expected a number",
    "--method.sparsty=0.6": "unknown key --method.sparsty (did you mean '--method.sparsity'?)",
    "--method.spars=0.6": "unknown key --method.spars (did you mean '--method.sparsity'?)",
    "--sparsity=0.6": "unknown key --sparsity (did you mean '--method.sparsity'?)",
    "--method.sparsity.x=1": "unknown key --method.sparsity.x",
    "--config=other.yaml": "unknown key --config; a recipe has task,",
    "--method.sparsity": "--method.sparsity needs a value; write --method.sparsity=VALUE",
    "--seed --out=x": "--seed needs a value; write --seed=VALUE",
    "--method=3": "--method is 3, expected a section",
    "--task=evaluate": "--task is 'evaluate', expected prune",
    "--method.sparsity=-1": "sparsity is -1.0",
    "--method={": "--method is '{', which is no YAML",
    "--seed=": "--seed is '', expected a whole number",
    "extra": "'extra' is no override; write --key=value",
    "-x": "'-x' is no override; write --key=value",
}


@pytest.mark.parametrize(("options", "complaint"), ON_COMMAND_LINE.items(), ids=ON_COMMAND_LINE)
def test_bad_override_is_one_line(tamp, options, complaint):
    code, out, err = tamp("run", SHIPPED, *options.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: command line: {complaint}")


def test_nearest_value_is_offered(tamp):
    assert tamp("run", SHIPPED, "--method.tokens=amea")[2].endswith("(did you mean 'amia'?)\n")


@pytest.mark.parametrize("name", ["llava_next_tmp", "missing.yaml", "./"])
def test_missing_recipe(tamp, name):
    code, _, err = tamp("run", name)
    assert code == 2
    assert err.startswith(f"error: no recipe '{name}': ")


def test_file_that_is_no_text(recipe, tamp, tmp_path):
    name = recipe("")
    (tmp_path / name).write_bytes(b"\xff\xfe\x00")
    assert tamp("run", name)[2].startswith("error: my.yaml is no readable YAML: ")


def test_quoted_pattern_is_text_in_file_and_on_command_line():
    @dataclasses.dataclass
    class Patterns:
        pattern: Literal["row", "2:4"] = "row"

    Checker(Patterns, "file").mapping({"pattern": "2:4"})
    Checker(Patterns, "command line").option("pattern", "2:4")
    with pytest.raises(UsageError, match="pattern is '4:8', expected one of row, 2:4"):
        Checker(Patterns, "command line").option("pattern", "4:8")


@pytest.mark.parametrize(
    "options", [["--method.sparsity=0.6"], ["--method.sparsity", "0.6"], ["--method={sparsity: 0.6}"]]
)
def test_overrides(options):
    recipe = parse(
        SHIPPED, [*options, "--trainer.accelerator=cpu", "--model.include+=q_proj", "--out=5", "--seed", "-1"]
    )[0]
    assert (recipe.method.sparsity, recipe.method.tokens) == (0.6, "amia")
    assert (recipe.trainer, recipe.model.include) == ({"accelerator": "cpu"}, ["q_proj"])
    assert (recipe.out, recipe.seed) == ("5", -1)


@pytest.mark.parametrize("number", ["1e-1", "1.0e-1", "0.1", ".1"])
def test_numbers_in_any_notation(recipe, number):
    assert parse(recipe(f"method: {{sparsity: {number}}}"), [])[0].method.sparsity == 0.1
    assert parse(SHIPPED, [f"--method.sparsity={number}"])[0].method.sparsity == 0.1


def test_print_config_is_the_same_recipe(recipe, tamp):
    options = ["--method.sparsity=0.7", "--out=null", "--trainer={max_time: '00:01:00:00'}"]
    code, out, _ = tamp("run", SHIPPED, *options, "--print_config")
    assert code == 0
    assert parse(recipe(out), [])[0] == parse(SHIPPED, options)[0]


def test_print_config_refuses_what_a_run_refuses(tamp):
    assert tamp("run", SHIPPED, "--method.sparsity=7", "--print_config")[:2] == (2, "")


def test_help_of_a_recipe(tamp):
    code, out, _ = tamp("run", SHIPPED, "--help")
    assert code == 0
    assert "--method.sparsity" in out
    assert "at least 0 and below 1" in " ".join(out.split())
    assert "--config" not in out


def test_trainer_keys_are_checked():
    check_trainer({"accelerator": "cpu"})
    with pytest.raises(UsageError, match=r"unknown key trainer\.acelerator \(did you mean 'trainer\.accelerator'\?\)"):
        check_trainer({"acelerator": "cpu"})


@pytest.mark.parametrize(("args", "code"), [([], 0), (["-h"], 0), (["run", "-h"], 0), (["run"], 2), (["prun", "x"], 2)])
def test_usage(tamp, args, code):
    got, out, err = tamp(*args)
    assert got == code
    assert (err if code else out).startswith("usage: tamp run RECIPE")


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


def test_doctor(tamp, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, _ = tamp("doctor")
    assert code == 0
    assert [line.split("  ")[0] for line in out.splitlines()][-1] == "lightning"
    assert "not on the PATH" in out


@pytest.mark.parametrize(
    ("line", "says"), [("from tamp_lightning.cli.main import x", "ours"), ("from sdk.a import b", "sdk:")]
)
def test_doctor_names_the_owner_of_lightning(tmp_path, monkeypatch, line, says):
    script = tmp_path / "lightning"
    script.write_text(f"#!/bin/python\nimport sys\n{line}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert says in doctor.lightning_owner()


def test_the_module_is_the_program():
    done = subprocess.run(
        [sys.executable, "-m", "tamp_lightning", "recipes"], capture_output=True, text=True, check=True
    )
    assert SHIPPED in done.stdout.split()
