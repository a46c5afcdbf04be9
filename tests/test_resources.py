"""Recipes by name and by path; folders of shipped and of cached files."""

from pathlib import Path

import pytest

from tamp_lightning import resources
from tamp_lightning.resources import cache_folder, data_folder, find_recipe, recipe_names


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A pretended package folder with nothing beside it yet."""
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "site" / "tamp_lightning" / "resources.py"))
    (tmp_path / "site" / "tamp_lightning").mkdir(parents=True)
    return tmp_path / "site" / "tamp_lightning"


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("task: prune\n")
    return path


@pytest.mark.parametrize("name", ["llava_next_tamp", "llava_next_tamp.yaml", "recipes/llava_next_tamp.yaml"])
def test_shipped_recipe_is_found_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = find_recipe(name)
    assert found.name == "llava_next_tamp.yaml"
    assert found.is_file()


def test_own_file_wins_over_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "llava_next_tamp.yaml")
    assert find_recipe("llava_next_tamp.yaml") == Path("llava_next_tamp.yaml")


@pytest.mark.parametrize("name", ["elsewhere/llava_next_tamp.yaml", "llava_next_tamp.json", "", ".", "recipes"])
def test_other_paths_are_not_mistaken_for_shipped_ones(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no recipe"):
        find_recipe(name)


def test_a_folder_is_no_recipe_but_may_hold_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"it is a folder; give a file, or the name of a shipped one"):
        find_recipe(str(tmp_path))
    write(tmp_path / "recipe.yaml")
    with pytest.raises(FileNotFoundError, match=r"it is a folder; that of its run is .*recipe\.yaml"):
        find_recipe(str(tmp_path))


def test_a_folder_of_the_same_name_does_not_hide_a_shipped_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wanda").mkdir()
    assert find_recipe("wanda").name == "wanda.yaml"


def test_nearest_name_is_offered():
    with pytest.raises(FileNotFoundError, match=r"no recipe 'lava_next_tmp': did you mean 'llava_next_tamp'\?"):
        find_recipe("lava_next_tmp")


def test_recipes_in_subfolders_go_by_their_own_name(package):
    inner = write(package / "_recipes" / "baselines" / "wanda.yaml")
    write(package / "_recipes" / "tamp.yaml")
    assert recipe_names() == ["tamp", "wanda"]
    for name in ("wanda", "recipes/baselines/wanda.yaml"):
        assert find_recipe(name) == inner
    with pytest.raises(FileNotFoundError):
        find_recipe("elsewhere/wanda.yaml")


def test_installed_files_win_over_neighbours(package):
    (package.parent / "data").mkdir()
    (package.parent / "pyproject.toml").touch()
    assert data_folder() == package.parent / "data"
    (package / "_data").mkdir()
    assert data_folder() == package / "_data"


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("TAMP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tamp_lightning"
    monkeypatch.setenv("TAMP_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
