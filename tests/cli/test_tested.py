"""Tested versions: the files, what is outside, and who says so."""

import re
from pathlib import Path

import pytest

from tamp_lightning.cli import doctor, main, refusals
from tamp_lightning.cli.tested import known_range, outside, pins

ROOT = Path(__file__).parents[2]
RANGE = {"transformers": ("5.20.0", "5.24.0"), "torch": ("2.13.0", "2.13.0")}


@pytest.mark.parametrize(
    ("have", "said"),
    [
        ({"transformers": "5.22.1", "torch": "2.13.0+cpu"}, []),
        ({"transformers": "5.20.0", "torch": None}, []),
        ({"transformers": "5.24.1"}, ["transformers 5.24.1 (tested: 5.20.0 to 5.24.0)"]),
        ({"transformers": "5.3.0"}, ["transformers 5.3.0 (tested: 5.20.0 to 5.24.0)"]),
        ({"torch": "2.14.0+cu130"}, ["torch 2.14.0+cu130 (tested: 2.13.0 to 2.13.0)"]),
    ],
)
def test_outside(have, said):
    assert outside(RANGE, have) == said


def test_every_floor_is_locked_and_not_above_the_lock():
    for name, (oldest, newest) in known_range().items():
        assert not outside({name: (oldest, newest)}, {name: oldest}), name


def test_the_ranges_of_pyproject_begin_at_the_floor():
    text = (ROOT / "pyproject.toml").read_text()
    found = dict(re.findall(r'"([\w-]+)(?:\[\w+\])?>=([\d.]+)', text))
    for name, oldest in pins("floor").items():
        asked = found[name if name in found else name.replace("-", "_")]
        assert oldest == asked or oldest.startswith(f"{asked}.") or oldest.startswith(asked), (name, oldest, asked)


def test_docs_show_the_range():
    page = (ROOT / "docs" / "versions.md").read_text()
    rows = re.findall(r"^\| ([\w-]+) \| ([\d.]+) \| ([\w.]+) \|$", page, re.MULTILINE)
    assert {name: (oldest, newest) for name, oldest, newest in rows} == known_range()


def test_doctor_names_what_is_outside(monkeypatch):
    monkeypatch.setattr(doctor, "untested", lambda: ["transformers 9.0 (tested: 5.20.0 to 5.24.0)"])
    assert "outside: transformers 9.0 (tested: 5.20.0 to 5.24.0)" in doctor.report()


def test_a_failing_run_says_so_first(monkeypatch, capsys):
    monkeypatch.setattr(refusals, "untested", lambda: ["transformers 9.0 (tested: 5.20.0 to 5.24.0)"])
    with pytest.raises(SystemExit) as exit_:
        main.main(["run", "no_such_recipe"])
    assert exit_.value.code == 2
    first, second, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith("note: not tested with transformers 9.0 (tested: 5.20.0 to 5.24.0)")
    assert second.startswith("error: no recipe 'no_such_recipe'")


def test_a_run_inside_says_nothing_of_it(monkeypatch, capsys):
    monkeypatch.setattr(refusals, "untested", list)
    with pytest.raises(SystemExit):
        main.main(["run", "no_such_recipe"])
    assert "not tested" not in capsys.readouterr().err
