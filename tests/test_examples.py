"""Every file in examples/ does what it says."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest
import yaml
from PIL import Image

from tamp_lightning import Method, prune
from tamp_lightning.benchmarks.base import update
from tamp_lightning.benchmarks.registry import BENCHMARKS, check_names
from tamp_lightning.checkpoint.facts import find_facts
from tamp_lightning.cli.parsing import build_parser, parse
from tamp_lightning.config.plugins import load_plugins
from tamp_lightning.data.readers.item import Source
from tamp_lightning.methods.method import CHOICES
from tamp_lightning.methods.table import option_table
from tamp_lightning.models.adapters import ADAPTERS
from tamp_lightning.reporting.card import Base, prune_card
from tamp_lightning.reporting.wording import method_name, method_sentence
from tamp_lightning.runs.plan import Plan

from .conftest import as_batch, toys
from .stream.conftest import make_llama, make_llava

EXAMPLES = Path(__file__).parents[1] / "examples"
OWN = {"by_chance": ("solver", "own_solver.py"), "first": ("tokens", "own_token_rule.py")}
PLAIN = {"tokens": "all", "allocation": "uniform"}
OPTIONS = {"progress": False, "accelerator": "cpu"}
REGISTRIES = {**CHOICES, "adapter": ADAPTERS, "benchmark": BENCHMARKS}


@pytest.fixture
def plugin():
    """Loads an example as a recipe's `plugins` would; afterwards its member and its section are gone again."""
    modules, kept = set(sys.modules), {choice: registry.loaded() for choice, registry in REGISTRIES.items()}

    def load(name):
        load_plugins([str(EXAMPLES / name)])

    yield load
    for module in set(sys.modules) - modules:
        if module.startswith("tamp_plugin_"):
            del sys.modules[module]
    for choice, registry in REGISTRIES.items():
        registry._members = kept[choice]
        for watcher in registry.watchers:
            watcher()


def written_recipe(name, tmp_path):
    """The recipe in an example's docstring, with the example's full path."""
    source = (EXAMPLES / name).read_text()
    lines = [line for line in source.split('"""')[1].splitlines() if line.startswith("    ")]
    recipe = yaml.safe_load("\n".join(lines)) | {"plugins": [str(EXAMPLES / name)]}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return str(path)


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(("member", "choice", "name"), [(k, *v) for k, v in OWN.items()])
def test_recipe_help_and_printed_recipe_know_a_plug_in(member, choice, name, tmp_path):
    old = Method(**PLAIN)
    recipe, _, text = parse(written_recipe(name, tmp_path), [])
    rule = getattr(recipe.method, f"{choice.removesuffix('s')}_rule".replace("tokens", "token"))
    assert (type(rule), rule) == (CHOICES[choice][member], getattr(recipe.method, member))
    assert yaml.safe_load(text)["method"][choice] == member
    help_text = " ".join(build_parser("prune", "own").format_help().split())
    assert f"--method.{member}." in help_text
    assert member in help_text.split("--method." + choice)[1][:200]
    assert old == Method(**PLAIN), "methods made before have the new section's defaults"
    table = option_table(member)
    assert table.startswith("| option | default | meaning |")
    assert f"`{member}." in table


def test_an_override_may_name_plug_in_and_constants(plugin):
    del plugin
    options = [f"--plugins=[{EXAMPLES / 'own_solver.py'}]", "--method.solver=by_chance"]
    method = parse("wanda", [*options, "--method.by_chance.temperature=0"])[0].method
    assert method.by_chance.temperature == 0
    with pytest.raises(ValueError, match=r"command line: by_chance.temperature is -1"):
        parse("wanda", [*options, "--method.by_chance.temperature=-1"])
    with pytest.raises(ValueError, match=r"did you mean '--method.by_chance.temperature'"):
        parse("wanda", [*options, "--method.by_chance.temprature=0"])


def test_own_solver_prunes_and_is_told_of(plugin):
    plugin("own_solver.py")
    batch = [as_batch(toys("tp"))]
    masks = {}
    for name, own in {
        "wanda": {},
        "cold": {"solver": "by_chance", "by_chance": {"temperature": 0.0}},
        "warm": {"solver": "by_chance", "by_chance": {"temperature": 1.0}},
    }.items():
        result = prune(make_llava(), batch, method=PLAIN | own, **OPTIONS)
        assert result.sparsity == pytest.approx(0.5, abs=1e-3)
        masks[name] = [row["sha256"] for row in result.plan.values()]
    assert masks["cold"] == masks["wanda"]
    assert not set(masks["warm"]) & set(masks["wanda"])
    told = PLAIN | {"solver": "by_chance", "pattern": "row", "sparsity": 0.5}
    assert method_name(told) == "Wanda by chance"
    assert "the weights that go are drawn, small ones most often; zeros" in method_sentence(told)
    plan = {"sparsity": 0.5, "linears": {"a.q": {"size": 2, "kept": 1, "sparsity": 0.5}}}
    assert "by\\_chance" in prune_card(Base("m"), Plan.parse(plan), told)


def test_own_token_rule_counts_the_first_tokens(plugin):
    plugin("own_token_rule.py")
    method = {"tokens": "first", "first": {"count": 3}, "allocation": "uniform"}
    result = prune(make_llava(), [as_batch(toys("ttp"))], method=method, **OPTIONS)
    assert {row["tokens_per_sample"] for row in result.plan.values()} == {3.0}
    told = {"tokens": "first", "allocation": "uniform", "solver": "wanda", "pattern": "row"}
    assert method_name(told) == "first × uniform × wanda"
    assert "The first tokens of every sample count, whatever their modality; " in method_sentence(told)


def test_own_adapter_leaves_linears_dense(plugin):
    names = {linear.name for linear in find_facts(make_llama()).linears[0]}
    plugin("own_adapter.py")
    assert names - {linear.name for linear in find_facts(make_llama()).linears[0]} == {"self_attn.o_proj"}


def test_own_benchmark_is_read_asked_and_scored(plugin, tmp_path):
    plugin("own_benchmark.py")
    check_names(["my_words"])
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    rows = [{"id": k, "question": "which colour?", "answer": "Red", "picture": "a.png"} for k in range(4)]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = BENCHMARKS["my_words"]
    items = own.read(Source(str(tmp_path / "asked.jsonl"))).items
    assert own.prompt(items[0]) == "which colour?\nAnswer the question using a single word or phrase."
    metric = own.metric(items)
    update(metric, [0, 1, 2, 3], ["red", "Red.", "blue", "a red one"], items)
    assert float(metric.compute()[own.headline]) == 0.5


@pytest.mark.parametrize("name", ["own_adapter.py", "own_benchmark.py"])
def test_recipes_in_docstrings_parse(plugin, name, tmp_path):
    del plugin
    path = written_recipe(name, tmp_path)
    recipe, _, _ = parse(path, [])
    assert recipe.plugins == [str(EXAMPLES / name)]


def test_own_calibration_data(processor, bed):
    example = run_path(str(EXAMPLES / "own_calibration_data.py"))
    pictures = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    rows = [(picture, "what color is the shape?", "red") for picture in pictures]
    result = example["prune_with"](copy.deepcopy(bed), processor, rows)
    assert result.sparsity == pytest.approx(0.5, abs=1e-3)


def test_model_in_memory():
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "model_in_memory.py")], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(
        "50.0 % of the prunable weights are zero now\nmodel.layers.0.self_attn.q_proj: 512 of"
    )


@pytest.mark.parametrize("name", ["no_such.py", "no_such_module", "tamp_lightning.no_such"])
def test_missing_plug_ins_are_refused(name):
    with pytest.raises(ValueError, match=f"plugins has '{name}', which is no"):
        load_plugins([name])


def test_a_bug_in_a_plug_in_keeps_its_own_error(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("import no_such_library\n")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_library"):
            load_plugins([str(file)])


def test_names_that_another_section_has_are_refused(plugin):
    plugin("own_solver.py")
    with pytest.raises(ValueError, match="by_chance would be a section of tokens and of solver: choose another name"):
        CHOICES["tokens"].add("by_chance", CHOICES["solver"]["by_chance"])
    assert "by_chance" not in CHOICES["tokens"]
    with pytest.raises(ValueError, match="solver 'plain' cannot be registered: it has to be a frozen dataclass"):
        CHOICES["solver"].add("plain", int)
