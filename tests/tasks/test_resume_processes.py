"""A run of several processes of which one or all are killed ends, started again, in the bytes of one that is not."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .test_processes import TAMP, WANDA, launch, recipe, write

PROCESSES = 2
METHODS = {
    "wanda": WANDA,
    "tamp": TAMP,
    "sparsegpt": {**WANDA, "solver": "sparsegpt"},
    "atv": {"tokens": "atv", "allocation": "uniform"},
    "corrected": {**WANDA, "solver": "sparsegpt", "correction": {"tau": 0.5}},
    "one shot": {**TAMP, "mode": "one_shot"},
    "reconstructed": {**WANDA, "reconstruct": {"steps": 3, "lr": 1e-3, "norms": True}},
}
COLLECTIVES = (3, 20)
"""Of the first ones, the range in which a process dies."""
SHOWN = ("run.json", "recipe.yaml", "report.html")
"""They hold times and the folder's name."""


@pytest.fixture(scope="module")
def tamp():
    """Runs `tamp run RECIPE` in several processes; gives their exit codes, outputs and seconds."""
    program = [sys.executable, Path(__file__).with_name("killing.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "500"}
    server = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def run(path: Path, out: Path, processes: int = PROCESSES, kill=None, *options: str) -> dict:
        arguments = ["run", str(path), f"--out={out}", f"--trainer.devices={processes}", *options]
        server.stdin.write(json.dumps({"arguments": arguments, "kill": kill, "processes": processes}) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    with server:
        yield run
        server.stdin.close()


def contents(out: Path) -> dict[str, str]:
    kept = [path for path in out.rglob("*") if path.is_file() and path.name not in SHOWN]
    files = [path for path in kept if path.parent.name != ".state.finished"]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def kills(chance: random.Random, seconds: float, wanted: int) -> list[dict]:
    """One rank, the writer, all of them, in turn."""
    found = []
    for number in range(wanted):
        rank = chance.randrange(PROCESSES)
        found += [
            [
                {"rank": rank, "collective": chance.randint(*COLLECTIVES)},
                {"rank": 0, "rename": chance.randint(1, 5)},
                {"seconds": chance.uniform(0.3, 0.9) * seconds},
            ][number % 3]
        ]
    return found


def compare(tamp, path: Path, tmp_path: Path, wanted: int, seed: int, *options: str) -> int:
    """Kill until a run has been killed `wanted` times; how many folders that took."""
    whole = tamp(path, tmp_path / "whole", PROCESSES, None, *options)
    assert whole["code"] == [0] * PROCESSES, whole["output"]
    expected, chance, killed, attempt = contents(tmp_path / "whole"), random.Random(seed), 0, 0
    while killed < wanted:
        out = tmp_path / f"killed-{attempt}"
        for kill in kills(chance, whole["seconds"], wanted - killed):
            done = tamp(path, out, PROCESSES, kill, *options)
            dead = done["code"].count(-signal.SIGKILL)
            killed += dead > 0
            # those that are left end by themselves, and none of them takes what is half done for done
            assert dead or done["code"] == [0] * PROCESSES, done["output"]
            if out.exists() and not (out / ".state").exists():
                break
        else:
            done = tamp(path, out, PROCESSES, None, *options)
            assert done["code"] == [0] * PROCESSES, done["output"]
        assert contents(out) == expected
        assert not (out / ".state").exists()
        attempt += 1
    return attempt


@pytest.mark.parametrize("name", ["wanda", *(pytest.param(n, marks=pytest.mark.slow) for n in METHODS if n != "wanda")])
def test_killed_three_times(tamp, place, tmp_path, name):
    compare(tamp, write(place, recipe(place, METHODS[name], 5)), tmp_path, 3, len(name))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["wanda", "tamp"])
def test_killed_ten_times(tamp, place, tmp_path, name):
    compare(tamp, write(place, recipe(place, METHODS[name], 5)), tmp_path, 10, 10)


@pytest.mark.slow
def test_killed_with_towers_and_a_mapped_cache(tamp, place, tmp_path):
    options = ("--towers.sparsity=0.3", "--cache.limit_gb=0")
    compare(tamp, write(place, recipe(place, METHODS["corrected"], 5)), tmp_path, 3, 4, *options)


def test_the_last_block_is_done_and_another_number_of_processes_is_refused(tamp, place, tmp_path):
    path, out = write(place, recipe(place, WANDA, 4)), tmp_path / "out"
    done = tamp(path, out, PROCESSES, {"rank": 0, "after": "pruned-00002.safetensors"})  # of three blocks
    assert -signal.SIGKILL in done["code"], done["output"]
    refused = tamp(path, out, 1)
    assert refused["code"] == [2]
    assert "compute.processes: 2 -> 1" in refused["output"][0]
    done = tamp(path, out)
    assert done["code"] == [0] * PROCESSES, done["output"]
    assert tamp(path, tmp_path / "whole")["code"] == [0] * PROCESSES
    assert contents(out) == contents(tmp_path / "whole")


DIES = """
import os, signal
import torch.distributed as dist

gather, count = dist.all_gather_object, 0

def counted(*args, **kwargs):
    global count
    count += 1
    if count == 8 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return gather(*args, **kwargs)

dist.all_gather_object = counted
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_torchrun_starts_the_processes_again(place, tmp_path, monkeypatch):
    (tmp_path / "dies.py").write_text(DIES)
    given = recipe(place, TAMP, 5)
    alone, plugged = write(place, given), tmp_path / "plugged.yaml"
    plugged.write_text(yaml.safe_dump(given | {"plugins": [str(tmp_path / "dies.py")]}))
    agent = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=2", "--standalone"]
    run = ["-m", "tamp_lightning", "run", str(plugged), f"--out={tmp_path / 'out'}", "--trainer.devices=2"]
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    done = launch(*agent, *run, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(continued)") == 1, done.stderr
    one = launch("-m", "tamp_lightning", "run", str(alone), f"--out={tmp_path / 'one'}", folder=tmp_path)
    assert one.returncode == 0, one.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
