"""Run folders read again, also one that 0.1.0 wrote (goldens/run_0.1.0, made before folders had a schema number)."""

import json
import shutil
from pathlib import Path

import pytest

from tamp_lightning.errors import InputError
from tamp_lightning.reporting.compare import rank
from tamp_lightning.reporting.grid import GridResult, Group
from tamp_lightning.reporting.html import write_report
from tamp_lightning.reporting.run import Run

OLD = Path(__file__).parents[1] / "goldens" / "run_0.1.0"


@pytest.fixture
def old(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def test_what_0_1_0_wrote_is_read():
    run = Run.read(OLD)
    metrics = json.loads((OLD / "metrics.json").read_text())
    assert run.name == "TAMP 50 %"
    assert run.model == "tiny"
    assert len(run.plan.linears) == run.run["linears"] == 21
    assert run.scored.retention.value == pytest.approx(metrics["retention"])
    assert run.scored.kl_interval.value == pytest.approx(metrics["fidelity"]["kl"], rel=1e-3)


def test_it_has_a_page(old):
    shutil.rmtree(old / "model")
    text = write_report(old).read_text()
    assert "TAMP" in text
    assert "50.0 %" in text


def test_it_is_compared(old):
    runs = [Run.read(OLD), Run.read(old)]
    assert [row["name"] for row in rank(runs).rows()] == ["TAMP (run_0.1.0) 50 %", "TAMP (old) 50 %"]
    grid = GridResult([Group("one", 0.5, runs[:1]), Group("other", 0.5, runs[1:])], "one")
    moved = next(row for row in grid.rows() if row["method"] == "other")["against_reference"]
    assert moved["retention"] == moved["kl"] == {"value": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.parametrize("name", ["run.json", "plan.json", "recipe.yaml"])
def test_a_folder_without_its_files_is_no_run(old, name):
    (old / name).unlink()
    with pytest.raises(InputError, match=f"it has no {name}"):
        Run.read(old)


def test_damage_is_one_line(old):
    (old / "predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"cannot be read as a run folder: [^\n]*$"):
        Run.read(old)
