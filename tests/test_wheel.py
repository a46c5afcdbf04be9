"""The wheel alone is enough: built, installed into an empty folder, used from another one."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tamp_lightning.resources import data_folder, recipe_names, shipped_recipes

TEMPLATES = Path(__file__).parents[1] / "tamp_lightning" / "reporting" / "templates"
ROOT = Path(__file__).parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*PIP, "wheel", *offline, "-w", str(folder), str(ROOT)], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([*PIP, "install", "--no-deps", "--no-index", "--target", str(folder), str(wheel)], check=True)
    return folder


@pytest.fixture
def python(site, tmp_path):
    """Runs `python ...` in an empty folder, with the installed package first on the path."""

    def run(*args: str) -> str:
        env = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run([sys.executable, *args], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_wheel_holds_recipes_data_and_types(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    recipes = {f"tamp_lightning/_recipes/{p.name}" for p in shipped_recipes().values()}
    files = [p for p in data_folder().rglob("*") if p.is_file()]
    data = {f"tamp_lightning/_data/{p.relative_to(data_folder()).as_posix()}" for p in files}
    templates = {f"tamp_lightning/reporting/templates/{p.name}" for p in TEMPLATES.iterdir()}
    assert recipes | data | templates | {"tamp_lightning/py.typed"} <= held
    assert {name.split("/")[0].split("-")[0] for name in held} == {"tamp_lightning"}
    assert any(name.endswith("licenses/LICENSE") for name in held)


def test_files_come_from_the_wheel(python, site):
    code = "import tamp_lightning.resources as r; print(r.__file__, r.data_folder(), r.find_recipe('llava_next_tamp'))"
    paths = [Path(p) for p in python("-c", code).split()]
    assert len(paths) == 3
    assert all(p.exists() and p.is_relative_to(site) for p in paths)


def test_commands_work_elsewhere(python, site):
    assert python("-m", "tamp_lightning", "recipes").split() == recipe_names()
    printed = python(str(site / "bin" / "tamp"), "run", "llava_next_tamp", "--print_config")
    assert "sparsity: 0.5" in printed
