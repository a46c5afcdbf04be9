"""Who may import whom, read from the source; and what importing costs."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tamp_lightning

PACKAGE = Path(tamp_lightning.__file__).parent
LEAVES = {"compat", "errors", "files", "pictures", "registry", "resources"}
METHODS = {"ops", "methods", "config"}
WEIGHTS = METHODS | {"checkpoint", "distributed", "stream"}
CONTENT = {"data", "metrics", "benchmarks", "models"}
WORK = LEAVES | WEIGHTS | CONTENT | {"passes", "evaluation", "runs", "testbeds", "reporting", "kernels", "export"}
WORK |= {"finetune"}
DOORS = WORK | {"tasks", "api", "cli", ""}
MAY_IMPORT = {
    **{leaf: {"errors"} for leaf in LEAVES},
    "ops": {"errors"},
    "kernels": LEAVES,
    "methods": {"ops", "errors", "registry"},
    "config": {"methods", "errors", "registry"},
    "checkpoint": LEAVES | {"methods"},
    "distributed": {"methods", "errors"},
    "stream": LEAVES | {"ops", "methods", "checkpoint", "distributed"},
    "models": LEAVES | {"checkpoint"},
    "data": LEAVES,
    "metrics": {"errors"},
    "benchmarks": {"data", "metrics", *LEAVES},
    "runs": LEAVES | {"config", "checkpoint"},
    "passes": LEAVES | WEIGHTS | {"data", "runs"},
    "evaluation": LEAVES | WEIGHTS | {"data", "metrics", "benchmarks", "passes", "runs"},
    "testbeds": LEAVES | WEIGHTS | CONTENT | {"passes", "evaluation"},
    "export": LEAVES | WEIGHTS | {"kernels"},
    "reporting": LEAVES | WEIGHTS | CONTENT | {"passes", "evaluation"},
    "finetune": LEAVES | WEIGHTS | {"data", "passes", "runs", "testbeds"},
    "tasks": WORK,
    "api": WORK | {"tasks"},
    "cli": DOORS,
    "__main__": DOORS,
    "": DOORS,
}
MODULES = sorted(p.relative_to(PACKAGE.parent).with_suffix("") for p in PACKAGE.rglob("*.py"))
NAMES = [".".join(m.parts).removesuffix(".__init__") for m in MODULES if m.name != "__main__"]


def floor(module: str) -> str:
    """`ops` of `tamp_lightning.ops.masks`; empty for the package itself."""
    return [*module.split("."), ""][1]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import by full name"
            bare = node.module == "tamp_lightning"
            yield from ((node.lineno, f"{node.module}.{a.name}" if bare else str(node.module)) for a in node.names)


def python(code: str, *flags: str) -> str:
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_one_way(path):
    file = PACKAGE.parent / path.with_suffix(".py")
    own = floor(".".join(path.parts).removesuffix(".__init__"))
    assert own in MAY_IMPORT, f"{own} is new: say in MAY_IMPORT what it may import"
    allowed = MAY_IMPORT[own] | {own}
    ours = [(line, name) for line, name in imports(file) if name.split(".")[0] == "tamp_lightning"]
    wrong = [f"{path}.py:{line} imports {name}" for line, name in ours if floor(name) not in allowed]
    assert not wrong, "\n".join(wrong)


def test_ops_need_torch_and_nothing_else():
    allowed = {"torch", "tamp_lightning", *sys.stdlib_module_names}
    for path in (PACKAGE / "ops").glob("*.py"):
        assert {name.split(".")[0] for _, name in imports(path)} <= allowed, path


def test_every_module_can_be_the_first_to_be_imported():
    code = f"""
import importlib, sys
for name in {NAMES!r}:
    for ours in [m for m in sys.modules if m.startswith("tamp_lightning")]:
        del sys.modules[ours]
    importlib.import_module(name)
"""
    python(code)


@pytest.mark.parametrize("code", ["import tamp_lightning", "import tamp_lightning.cli.main, tamp_lightning.resources"])
def test_import_loads_no_heavy_library(code):
    loaded = json.loads(python(f"import json, sys\n{code}\nprint(json.dumps(list(sys.modules)))"))
    assert not {"torch", "lightning", "transformers", "numpy"} & set(loaded)


def test_help_says_how_to_run_a_recipe():
    out = subprocess.run([sys.executable, "-m", "tamp_lightning", "--help"], capture_output=True, text=True, check=True)
    assert "tamp run RECIPE" in out.stdout


WRONG_CALLS = {"stream/base.py": 3, "stream/disk.py": 1, "stream/cache.py": 1, "kernels/linear.py": 1}
"""Plain ValueErrors outside of the libraries `ops` and `metrics`: calls that only a bug can make."""


def test_bad_input_is_an_input_error():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
        if count := names.count("ValueError"):
            found[path.relative_to(PACKAGE).as_posix()] = count
    outside = {name: count for name, count in found.items() if not name.startswith(("ops/", "metrics/"))}
    assert outside == WRONG_CALLS, "raise InputError where the user can put it right"
