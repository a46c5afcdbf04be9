"""Files and modules that a recipe names."""

import sys
from hashlib import sha256

import pytest

from tamp_lightning.config.plugins import contents, load_plugins


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Writes a plug-in that notes each time it runs in `sys.ran`, and gives its path."""
    monkeypatch.setattr(sys, "ran", [], raising=False)

    def write(name, text="import sys\nsys.ran.append(__name__)\n"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    yield write
    for name in [name for name in sys.modules if name.startswith("tamp_plugin_")]:
        del sys.modules[name]


def test_a_file_is_imported_once_and_two_of_one_name_are_two(plugin, tmp_path):
    (tmp_path / "other").mkdir()
    first, second = plugin("mine.py"), plugin("other/mine.py")
    load_plugins([first, first, second])
    load_plugins([first])
    assert len(sys.ran) == len(set(sys.ran)) == 2


def test_a_file_that_fails_is_tried_again(plugin):
    path = plugin("mine.py", "import sys\nsys.ran.append(1)\n1 / 0\n")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            load_plugins([path])
    assert sys.ran == [1, 1]


def test_what_is_not_there_is_named(plugin):
    with pytest.raises(ValueError, match=r"plugins has 'nowhere\.py', which is no file"):
        load_plugins(["nowhere.py"])
    with pytest.raises(ValueError, match=r"plugins has 'no_such.module', which is no installed module"):
        load_plugins(["no_such.module"])
    with pytest.raises(ModuleNotFoundError, match="no_such_thing"):
        load_plugins([plugin("mine.py", "import no_such_thing\n")])


def test_the_content_of_files_is_part_of_a_run(plugin):
    path = plugin("mine.py", "x = 1\n")
    assert contents([path, "json"]) == {path: sha256(b"x = 1\n").hexdigest(), "json": None}
