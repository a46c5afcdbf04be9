"""The program as a test runs it."""

import pytest

import tamp_lightning.cli.run as run_module
from tamp_lightning.cli import main as cli

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
