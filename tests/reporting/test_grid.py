"""A comparison from end to end on the tiny model, and its figures against those of its run folders."""

import json
import re
from statistics import fmean

import pyarrow.parquet as pq
import pytest
import yaml

from tamp_lightning.errors import InputError
from tamp_lightning.metrics.compare import paired_difference
from tamp_lightning.reporting.compare import rank
from tamp_lightning.reporting.grid import GridResult, Group
from tamp_lightning.reporting.grid_figures import by_sparsity
from tamp_lightning.reporting.grid_page import write_grid
from tamp_lightning.reporting.run import Run

from .conftest import EVIL, QUIET, tamp


@pytest.fixture(scope="module")
def grid(tiny, tmp_path_factory):
    """Two methods, two seeds; the folder, what was printed, and the command."""
    folder = tmp_path_factory.mktemp("grid")
    recipe = {
        "task": "compare",
        "model": {"checkpoint": str(tiny)},
        "methods": {
            "wanda": {"tokens": "all", "allocation": "uniform"},
            "magnitude": {"tokens": "all", "allocation": "uniform", "solver": "magnitude"},
        },
        "grids": [{"methods": ["wanda", "magnitude"], "sparsities": [0.5], "seeds": [1, 2]}],
        "calibration": {"samples": 4},
        "scores": {"split": "selection"},
    }
    (folder / "my.yaml").write_text(yaml.safe_dump(recipe))
    command = ["run", str(folder / "my.yaml"), f"--out={folder / 'out'}", *QUIET]
    return folder / "out", tamp(*command), command


def test_leaves_run_folders_without_models_a_table_and_a_page(grid):
    out, printed, _ = grid
    cells = sorted(path.name for path in (out / "cells").iterdir())
    assert cells == ["magnitude-50-1", "magnitude-50-2", "wanda-50-1", "wanda-50-2"]
    assert not list(out.glob("cells/*/model"))
    assert (out / "report.html").stat().st_size > 10_000
    assert len((out / "compare.md").read_text().splitlines()) == 2 + 2
    assert "4 cells, 0 of them there already" in printed
    assert "magnitude-50-2: retention" in printed


def test_figures_are_means_over_seeds_of_what_the_run_folders_say(grid):
    out, _, _ = grid
    content = json.loads((out / "compare.json").read_text())
    rows = {row["method"]: row for row in content["rows"]}
    kl = {}
    for method, row in rows.items():
        folders = [out / "cells" / f"{method}-50-{seed}" for seed in (1, 2)]
        metrics = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
        tables = [pq.read_table(folder / "predictions.parquet").to_pydict() for folder in folders]
        kl[method] = [fmean(pair) for pair in zip(*(t["kl"] for t in tables), strict=True)]
        assert row["seeds"] == 2
        assert row["retention"]["value"] == pytest.approx(fmean(m["retention"] for m in metrics))
        assert row["retention"]["low"] <= row["retention"]["value"] <= row["retention"]["high"]
        assert row["kl"]["value"] == pytest.approx(fmean(m["fidelity"]["kl"] for m in metrics), rel=1e-3)
        for name, score in row["benchmarks"].items():
            assert score == pytest.approx(fmean(m["benchmarks"][name]["pruned"] for m in metrics))
    pictures = tables[0]["picture"]
    expected = paired_difference(kl["magnitude"], kl["wanda"], pictures)
    found = rows["magnitude"]["against_reference"]["kl"]
    assert (found["value"], found["low"], found["high"]) == pytest.approx(expected[:1] + expected[2:4])
    wanda = rows["wanda"]["kl"]
    assert f"{wanda['value']:.2f} ± {wanda['sd_over_seeds']:.2f} [" in (out / "compare.md").read_text()
    assert f"± {wanda['sd_over_seeds']:.3f} over draws" in (out / "report.html").read_text()
    assert "against_reference" not in rows["wanda"]
    assert rows["magnitude"]["kl"]["sd_over_seeds"] == pytest.approx(0)  # reads no calibration data
    assert [row["kl"]["value"] for row in content["rows"]] == sorted(row["kl"]["value"] for row in content["rows"])


def row(method: str, sparsity: float, kl: float) -> dict:
    interval = {"value": kl, "low": 0.9 * kl, "high": 1.1 * kl}
    kept = {"value": 90 - kl, "low": 80.0, "high": 95.0}
    own = {"method": method, "sparsity": sparsity, "seeds": 2, "retention": kept, "kl": interval, "seconds": 9.0}
    moved = {} if method == "wanda" else {"against_reference": {"kl": interval, "retention": kept}}
    return own | {"corrected_retention": None} | moved


def test_page_has_a_table_per_sparsity_and_draws_what_has_several(tmp_path):
    rows = [row("wanda", 0.5, 1.0), row(EVIL, 0.5, 2.0), row("wanda", 0.6, 3.0), row("once", 0.6, 4.0)]
    told = {"model": "bed", "split": "test", "questions": 7}
    text = write_grid(tmp_path, rows, "wanda", -0.5, told).read_text()
    assert re.findall(r'<section id="([\w-]+)">', text) == ["sparsity", "at-50", "at-60", "how"]
    assert "At 50 %, <b>wanda</b> stays closest" in text
    assert text.index(">1.000 <") < text.index(">2.000 <") < text.index(">3.000 <")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "compare.png", "compare.svg"}
    assert list(by_sparsity(rows)) == ["wanda"]


def test_a_page_of_one_sparsity_has_no_lines_over_sparsity(tmp_path):
    text = write_grid(
        tmp_path, [row("wanda", 0.5, 1.0)], "wanda", float("nan"), {"model": "", "split": "", "questions": 1}
    )
    assert 'id="sparsity"' not in text.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_goes_on_where_it_was_stopped(grid):
    out, _, command = grid
    before = {path: path.stat().st_mtime_ns for path in out.glob("cells/*/run.json")}
    (out / "cells/wanda-50-2").rename(out / "gone")
    plan = json.loads((out / "gone/plan.json").read_text())
    assert "4 cells, 3 of them there already" in tamp(*command)
    after = {path: path.stat().st_mtime_ns for path in out.glob("cells/*/run.json")}
    assert [path.parent.name for path in after if after[path] != before[path]] == ["wanda-50-2"]
    assert json.loads((out / "cells/wanda-50-2/plan.json").read_text()) == plan


def test_draws_on_other_questions_have_no_mean(grid):
    out, _, _ = grid
    first, second = (Run.read(out / "cells" / f"wanda-50-{seed}") for seed in (1, 2))
    second.rows.pop()
    with pytest.raises(InputError, match="answered other questions"):
        GridResult([Group("wanda", 0.5, [first, second])], "wanda")
    apart = GridResult([Group("wanda", 0.5, [first]), Group("x", 0.5, [second])], "wanda")
    assert not apart.is_paired
    assert not any("against_reference" in row for row in apart.rows())


def test_a_group_is_paired_with_the_reference_of_its_own_source(grid):
    out, _, _ = grid
    runs = [[Run.read(out / "cells" / f"wanda-50-{seed}")] for seed in (1, 2)]
    groups = [Group(m, 0.5, own, s) for s, own in zip((None, "captions"), runs, strict=True) for m in ("wanda", "x")]
    rows = {row["method"]: row for row in GridResult(groups, "wanda").rows()}
    assert set(rows) == {"wanda", "x", "wanda (captions)", "x (captions)"}
    for name in ("x", "x (captions)"):  # each is the reference itself under another name
        assert rows[name]["against_reference"]["kl"]["value"] == 0
    assert not any("against_reference" in rows[name] for name in ("wanda", "wanda (captions)"))


def test_the_cells_of_a_grid_are_ranked_as_the_grid_ranks_them(grid):
    out, _, _ = grid
    found = rank([Run.read(path) for path in sorted(out.glob("cells/*"))]).rows()
    rows = json.loads((out / "compare.json").read_text())["rows"]
    assert [row["kl"] for row in found] == [row["kl"] for row in rows]
    assert [row["seeds"] for row in found] == [2, 2]
