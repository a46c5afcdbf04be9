"""A run that is killed ends, continued by the same command, in the same bytes as one that is not."""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

METHODS = {
    "wanda": {"tokens": "all", "allocation": "uniform"},
    "tamp": {},
    "sparsegpt": {"tokens": "all", "allocation": "uniform", "solver": "sparsegpt"},
    "atv": {"tokens": "atv", "allocation": "uniform"},
    "alpha": {"allocation": "alpha"},
    "owl": {"tokens": "all", "allocation": "owl"},
    "ecoflap": {"tokens": "all", "allocation": "ecoflap", "ecoflap": {"samples": 2}},
    "modality_mix": {"tokens": "modality_mix", "allocation": "uniform", "modality_mix": {"held_out": 0.5}},
    "corrected": {"solver": "sparsegpt", "correction": {"tau": 0.5}},
    "polished": {"correction": {"tau": 0.5}, "polish": {"steps": 2}},
    "admm": {"solver": "admm"},
    "2:4": {"tokens": "all", "allocation": "uniform", "pattern": "2:4"},
}
QUICK = ("wanda", "tamp", "sparsegpt", "atv")
SLOW = [name for name in METHODS if name not in QUICK]
KILLED = -9


@pytest.fixture(scope="module")
def tamp(tmp_path_factory):
    """Runs `tamp run RECIPE` on a tiny model in a process of its own; gives exit code, output and seconds."""
    program = [sys.executable, "-W", "error::UserWarning:tamp_lightning", Path(__file__).with_name("killing.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "500"}
    server = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def run(recipe: Path, out: Path, *options: str, kill=None) -> dict:
        order = {"arguments": ["run", str(recipe), f"--out={out}", *options], "kill": kill}
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    with server:
        yield run
        server.stdin.close()


@pytest.fixture(scope="module")
def source(bed, processor, tmp_path_factory) -> Path:
    """A tiny checkpoint whose blocks lie across several shards."""
    folder = tmp_path_factory.mktemp("source")
    bed.save_pretrained(folder, max_shard_size="30KB")
    processor.save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 4
    return folder


@pytest.fixture
def recipe(source, tmp_path):
    """Writes a recipe for the tiny checkpoint."""

    def write(method: dict, **others: object) -> Path:
        path = tmp_path / "my.yaml"
        sections = {
            "model": {"checkpoint": str(source)},
            "method": method,
            "calibration": {"samples": 4, "turns": 1, "batch_size": 2},
            "scores": {"benchmarks": "none"},
            "trainer": {"enable_progress_bar": False, "accelerator": "cpu"},
        }
        path.write_text(yaml.safe_dump(sections | others))
        return path

    return write


def contents(out: Path) -> dict[str, str]:
    """sha256 of every file that has to be the same; a run killed while it deletes its state leaves some of that."""
    kept = [path for path in out.rglob("*") if path.is_file() and path.name not in ("run.json", "recipe.yaml")]
    files = [path for path in kept if path.parent.name != ".state.finished"]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def finish(tamp, recipe: Path, out: Path, kills) -> int:
    """Run until nothing kills it any more; how often it was killed."""
    killed = 0
    for kill in kills:
        done = tamp(recipe, out, kill=kill)
        killed += done["code"] == KILLED
        assert done["code"] in (0, KILLED), done["output"]
        if done["code"] == 0 or (out.exists() and not (out / ".state").exists()):  # killed when all was done
            return killed
    done = tamp(recipe, out)
    assert done["code"] == 0, done["output"]
    return killed


def compare(tamp, recipe: Path, out: Path, wanted: int, seed: int) -> None:
    whole = tamp(recipe, out / "whole")
    assert whole["code"] == 0, whole["output"]
    chance, killed, attempt = random.Random(seed), 0, 0
    expected = contents(out / "whole")
    while killed < wanted:
        folder = out / f"killed-{attempt}"
        # the first few renames of each process, so that one run is killed many times; or any moment at all
        at_renames = [chance.randint(1, 5) for _ in range(wanted - killed)]
        at_times = [{"seconds": chance.uniform(0.2, 1) * whole["seconds"]} for _ in range(2)]
        kills = [*at_renames[: wanted // 2], *at_times, *at_renames[wanted // 2 :]]
        killed += finish(tamp, recipe, folder, kills)
        assert contents(folder) == expected
        assert not (folder / ".state").exists()
        attempt += 1


@pytest.mark.parametrize("name", QUICK)
def test_killed_five_times(tamp, recipe, tmp_path, name):
    compare(tamp, recipe(METHODS[name]), tmp_path, wanted=5, seed=len(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_killed_twenty_times(tamp, recipe, tmp_path, name):
    compare(tamp, recipe(METHODS[name]), tmp_path, wanted=20, seed=20)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_killed_with_any_method(tamp, recipe, tmp_path, name):
    compare(tamp, recipe(METHODS[name]), tmp_path, wanted=6, seed=6)
