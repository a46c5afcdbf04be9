"""A run that is killed ends, continued by the same command, in the same bytes as one that is not."""

import hashlib
import json
import os
import random
import re
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
    "corrected whole": {"correction": {"tau": 0.5}, "reconstruct": {"steps": 2}},
    "reconstructed": {"reconstruct": {"steps": 3, "norms": True, "weigh": "rule"}, "refit": {"steps": 3}},
    "reconstructed dense": {"solver": "magnitude", "tokens": "all", "reconstruct": {"steps": 3, "inputs": "dense"}},
    "admm": {"solver": "admm"},
    "tried": {"allocation": "diversity", "diversity": {"widths": [0.0, 0.1], "held_out": 0.5}},
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
    files = [path for path in kept if path.parent.name != ".state.finished" and path.name != "report.html"]
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


@pytest.mark.parametrize("name", [QUICK[0], *(pytest.param(name, marks=pytest.mark.slow) for name in QUICK[1:])])
def test_killed_five_times(tamp, recipe, tmp_path, name):
    compare(tamp, recipe(METHODS[name]), tmp_path, wanted=5, seed=len(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_killed_twenty_times(tamp, recipe, tmp_path, name):
    compare(tamp, recipe(METHODS[name]), tmp_path, wanted=20, seed=20)


@pytest.mark.parametrize("name", ["wanda", pytest.param("corrected", marks=pytest.mark.slow)])
def test_killed_with_towers(tamp, recipe, tmp_path, name):
    path = recipe(METHODS[name], towers={"sparsity": 0.3})
    compare(tamp, path, tmp_path, wanted=5, seed=9)
    assert json.loads((tmp_path / "whole" / "plan.json").read_text())["towers_sparsity"] == pytest.approx(0.3, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_killed_with_any_method(tamp, recipe, tmp_path, name):
    compare(tamp, recipe(METHODS[name]), tmp_path, wanted=6, seed=6)


def test_scores_of_the_source_are_found_once_and_metrics_are_the_same(tamp, recipe, tmp_path):
    path = recipe(METHODS["tamp"], scores={"benchmarks": "easy_vqa"})
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert tamp(path, whole)["code"] == 0
    assert tamp(path, out, kill=5)["code"] == KILLED  # the whole run left the dense model's answers in the cache
    assert tamp(path, out, kill=3)["code"] == KILLED
    done = tamp(path, out)
    assert "from the cache" in done["output"]
    assert done["code"] == 0, done["output"]
    assert f"run folder: {out} (continued)" in done["output"]
    assert contents(out) == contents(whole)
    assert {"metrics.json", "predictions.parquet"} <= contents(out).keys()
    assert "score dense" not in json.loads((out / "run.json").read_text())["seconds"]
    again = tamp(path, out)
    assert again["code"] == 2
    assert "nothing is overwritten" in again["output"]


def refusal(done: dict) -> str:
    """The one line that a refused run writes."""
    lines = [line for line in done["output"].splitlines() if not line.startswith("run folder:")]
    assert done["code"] == 2, done["output"]
    assert len(lines) == 1, done["output"]
    return lines[0]


@pytest.fixture
def unfinished(tamp, recipe, tmp_path) -> tuple[Path, Path]:
    """A recipe and the folder of its run, which was killed after the first pruned block."""
    path, out = recipe(METHODS["wanda"]), tmp_path / "out"
    seen = 0
    while not (out / ".state" / "pruned-00000.safetensors").exists():
        seen += 2
        assert tamp(path, out, kill=seen)["code"] == KILLED
    return path, out


def test_another_recipe_source_or_thread_count_is_refused_with_the_difference(tamp, unfinished, source):
    path, out = unfinished
    before = contents(out)
    line = refusal(tamp(path, out, "--method.sparsity=0.6", "--seed=1"))
    assert "settings.method.sparsity: 0.5 -> 0.6, settings.seed: 0 -> 1" in line
    assert "run it as it was started, choose another out, or delete the folder" in line
    assert re.search(r'compute.dtype: "\w+" -> "bfloat16"', refusal(tamp(path, out, "--model.dtype=bfloat16")))
    state = out / ".state" / "fingerprint.json"
    kept = state.read_text()
    known = json.loads(kept)
    known["environment"]["threads"], known["environment"]["packages"]["torch"] = 7, "1.0"
    state.write_text(json.dumps(known))
    line = refusal(tamp(path, out))
    assert 'environment.packages.torch: "1.0" -> ' in line
    assert "environment.threads: 7 -> 1" in line
    state.write_text(kept)
    shard = min(source.glob("*.safetensors"))
    times = shard.stat().st_atime_ns, shard.stat().st_mtime_ns
    os.utime(shard, ns=(times[0], times[1] + 5 * 10**9))
    assert f"source.{shard.name}.changed: " in refusal(tamp(path, out))
    os.utime(shard, ns=times)
    assert contents(out) == before
    assert tamp(path, out)["code"] == 0


def test_other_samples_are_refused(tamp, recipe, tmp_path):
    rows = [{"conversations": [{"from": "human", "value": word}, {"from": "gpt", "value": "no"}]} for word in "abc"]
    data, out = tmp_path / "rows.json", tmp_path / "out"
    data.write_text(json.dumps(rows))
    choice = {"source": "llava_json", "path": str(data), "samples": 3, "batch_size": 2}
    path = recipe(METHODS["wanda"], calibration=choice)
    assert tamp(path, out, kill=5)["code"] == KILLED
    rows[2]["conversations"][0]["value"] = "a blue circle"
    data.write_text(json.dumps(rows))
    assert "calibration batch 1 is not what it was" in refusal(tamp(path, out))


def test_a_truncated_shard_is_named_and_its_blocks_are_pruned_anew(tamp, unfinished, tmp_path):
    path, out = unfinished
    whole = tmp_path / "whole"
    assert tamp(path, whole)["code"] == 0
    shard = min((out / "model").glob("*.safetensors"))
    for damaged, complaint in ((shard.read_bytes()[:-3], "bytes where"), (bytes(shard.stat().st_size), "sha256")):
        shard.write_bytes(damaged)
        line = refusal(tamp(path, out))
        assert str(shard) in line
        assert complaint in line
        assert "delete it and run again" in line
    shard.unlink()
    assert tamp(path, out)["code"] == 0
    assert contents(out) == contents(whole)


def test_a_truncated_spool_and_a_truncated_record_are_named(tamp, unfinished):
    path, out = unfinished
    for file in (*(out / "model" / ".partial").glob("block-*"), out / ".state" / "pruned-00000.safetensors"):
        file.write_bytes(file.read_bytes()[:-3])
        assert f"{file} is " in refusal(tamp(path, out))
        file.unlink()
    assert tamp(path, out)["code"] == 0


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a tmpfs of a given size; only root may."""
    mounted = []

    def mount(*options: str) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir(exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder], capture_output=True)
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted: {done.stderr.decode().strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_up_is_named_and_a_later_run_continues(tamp, recipe, source, tmp_path, small_disk):
    path, whole = recipe(METHODS["sparsegpt"]), tmp_path / "whole"
    assert tamp(path, whole)["code"] == 0
    disk = small_disk("size=2m")
    ballast, out = disk / "ballast", disk / "out"
    assert tamp(path, out, kill=7)["code"] == KILLED
    ballast.write_bytes(bytes(shutil_free(disk) - 24_000))
    too_little = refusal(tamp(path, out))
    assert f"{out / 'model'} needs " in too_little
    # room when it starts, none when a block is to be written
    ballast.unlink()
    done = tamp(path, out, kill={"fill": str(disk), "files": 1})
    assert "No space left on device" in refusal(done)
    assert not list(out.rglob("*.tmp"))
    (disk / "filler").unlink()
    assert tamp(path, out)["code"] == 0
    assert contents(out) == contents(whole)


def shutil_free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def test_a_read_only_folder_is_refused_at_once(tamp, recipe, small_disk):
    disk = small_disk("ro", "size=1m")
    line = refusal(tamp(recipe(METHODS["wanda"]), disk / "out"))
    assert "cannot be written" in line
    assert "read-only" in line
