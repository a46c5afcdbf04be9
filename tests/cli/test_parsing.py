"""From recipes and overrides to typed objects: what is refused and how, overrides, the complete recipe."""

import pytest

from tamp_lightning.cli.parsing import check_trainer, parse
from tamp_lightning.config.recipe_file import UsageError

from .conftest import SHIPPED

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
