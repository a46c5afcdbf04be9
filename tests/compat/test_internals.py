"""What transformers does not promise is used in one room, and a release that moves it is told by name."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import transformers

import tamp_lightning
from tamp_lightning.compat import loading, modeling

PACKAGE = Path(tamp_lightning.__file__).parent
PUBLIC = {"transformers", "transformers.modeling_outputs", "transformers.utils"}
"""Modules of transformers whose names are documented."""
NOT_DOCUMENTED = {"SAFE_WEIGHTS_INDEX_NAME", "SAFE_WEIGHTS_NAME"}
NAMES = [(module, name) for module in (loading, modeling) for name in module.__all__]


def found(dotted: str) -> bool:
    """Whether an attribute is where it was: the longest part that is a module, then attributes."""
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            thing = import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            if not hasattr(thing, part):
                return False
            thing = getattr(thing, part)
        return True
    return False


@pytest.mark.parametrize(
    ("dotted", "use"), [*(loading.INTERNALS | modeling.INTERNALS).items()], ids=lambda value: value.rpartition(".")[2]
)
def test_internals_are_where_they_were(dotted, use):
    assert found(dotted), f"transformers {transformers.__version__} moved {dotted}, needed for: {use}"


def test_a_moved_name_is_noticed():
    assert not found("transformers.modeling_utils.PreTrainedModel._no_such_thing")
    assert not found("transformers.no_such_module.thing")


@pytest.mark.parametrize(("module", "name"), NAMES, ids=lambda value: getattr(value, "__name__", value))
def test_what_is_offered_is_there(module, name):
    assert getattr(module, name) is not None


def test_the_cache_has_the_name_that_models_use():
    output = transformers.modeling_outputs.CausalLMOutputWithPast(**{modeling.CACHE: "the cache"})
    assert output[modeling.CACHE] == "the cache"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_else_imports_what_is_not_promised(path):
    if path.parent.name == "compat":
        return
    wrong = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "transformers":
            names = {alias.name for alias in node.names}
            if node.module not in PUBLIC or names & NOT_DOCUMENTED or any(n.startswith("_") for n in names):
                wrong.append(f"{path}:{node.lineno} imports {', '.join(sorted(names))} from {node.module}")
    assert not wrong, "; ".join(wrong) + ": use tamp_lightning.compat"


@pytest.mark.parametrize("name", ["_get_dtype_plan", "_adjust_missing_and_unexpected_keys", "_weight_conversions"])
def test_private_attributes_are_used_in_compat_alone(name):
    users = [path for path in PACKAGE.rglob("*.py") if f".{name}" in path.read_text()]
    assert {path.parent.name for path in users} == {"compat"}


@pytest.mark.parametrize("first", ["compat.loading", "compat.modeling", "export.quantizer", "export.job"])
def test_any_of_them_can_be_the_first_in_a_fresh_process(first):
    code = (
        f"import tamp_lightning.{first}, transformers; from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING"
    )
    done = subprocess.run([sys.executable, "-c", f"{code}; assert 'tamp_bitmask' in AUTO_QUANTIZER_MAPPING"])
    assert done.returncode == 0
