"""Several processes give the bits of one; what they cannot do is refused, and none waits for one that has failed."""

import json
import os
import shutil
import socket
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import yaml
from pyarrow import parquet
from safetensors.torch import load_file

from tamp_lightning.api import prune
from tamp_lightning.cli.run import run as run_recipe

from .processes_program import outcomes
from .reconstruction_program import CASES, EVEN, STEPS, alone

LIMIT = 600
"""Seconds; whoever waits for a process that is gone is caught by it."""
WANDA = {"tokens": "all", "allocation": "uniform"}
TAMP = {"tokens": "amia", "allocation": "das"}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def recipe(place: Path, method: dict, samples: int, **changes) -> dict:
    return {
        "model": {"checkpoint": str(place / "checkpoint")},
        "method": method,
        "calibration": {
            "source": "llava_json",
            "path": str(place / f"{samples}.json"),
            "samples": samples,
            "batch_size": 1,
        },
        "scores": {"benchmarks": "none"},
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
    } | changes


def write(place: Path, content: dict) -> Path:
    path = place / f"{sha256(str(content).encode()).hexdigest()[:8]}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def launch(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    """Python in a process of its own, which may start others."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, cwd=folder)


def start(path: Path, out: Path, processes: int, *before: str) -> subprocess.CompletedProcess:
    """`tamp run` with several processes; `before` is what starts them if not the first."""
    run = ["tamp_lightning", "run", str(path), f"--out={out}", f"--trainer.devices={processes}"]
    return launch(*before, "-m", *run, folder=out.parent)


def content(out: Path) -> dict[str, str]:
    """Sha256 of everything in a run folder that says what was pruned; the plan holds those of the masks."""
    timed = ("run.json", "recipe.yaml", "report.html")
    other = (*timed, "masks.safetensors", "metrics.json", "predictions.parquet")
    files = [f for f in out.rglob("*") if f.is_file() and f.name not in other]
    assert {"config.json", "plan.json"} < {f.name for f in files}
    return {f.relative_to(out).as_posix(): sha256(f.read_bytes()).hexdigest() for f in files}


def check(
    place: Path, tmp_path: Path, method: dict, samples: int, processes: int, *before: str, **changes
) -> tuple[Path, Path]:
    path, one, several = write(place, recipe(place, method, samples, **changes)), tmp_path / "one", tmp_path / "several"
    run_recipe(str(path), [f"--out={one}"])
    done = start(path, several, processes, *before)
    assert done.returncode == 0, done.stderr
    assert before or not done.stderr
    assert done.stdout.count("pruned checkpoint:") == 1
    assert content(one) == content(several)
    masks = [load_file(out / "masks.safetensors") for out in (one, several)]
    assert masks[0].keys() == masks[1].keys()
    assert all(torch.equal(mask, masks[1][name]) for name, mask in masks[0].items())
    assert json.loads((several / "run.json").read_text())["processes"] == processes
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "several"]
    return one, several


def test_two_processes_leave_the_files_of_one(place, tmp_path):
    check(place, tmp_path, {**TAMP, "solver": "sparsegpt"}, 5, 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*matrices of experts")
@pytest.mark.parametrize("processes", [2, 3])
def test_any_method_and_number_of_samples_gives_the_bits_of_one_process(tmp_path, processes):
    done = launch("-m", f"{__package__}.processes_program", str(tmp_path), str(processes), folder=Path.cwd())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    expected = outcomes(1, processes)
    for rank in range(processes):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found.keys() == expected.keys()
        for name, outcome in expected.items():
            assert found[name] == outcome, name


def test_reconstruction_takes_the_mean_of_the_gradients_of_all_processes(tmp_path):
    """Two processes with a sample a batch take the steps of one that has those two samples in a batch."""
    done = launch("-m", f"{__package__}.reconstruction_program", str(tmp_path), folder=Path.cwd())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    shares, again, uneven, other = ([torch.load(tmp_path / f"{name}-{rank}.pt") for rank in range(2)] for name in CASES)
    for found in (shares, again, uneven, other):
        assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    assert all(torch.equal(value, again[0][name]) for name, value in shares[0].items())
    one, plain = alone(EVEN, STEPS), alone(EVEN, 0)
    assert any(not torch.equal(value, plain[name]) for name, value in one.items() if "norm" in name)
    for name, value in one.items():
        torch.testing.assert_close(shares[0][name], value, rtol=1e-3, atol=1e-5, msg=name)
    assert any(not torch.equal(value, other[0][name]) for name, value in uneven[0].items())


@pytest.mark.slow
def test_processes_started_by_torchrun_do_the_same(place, tmp_path):
    check(place, tmp_path, TAMP, 5, 2, "-m", "torch.distributed.run", "--nproc-per-node=2")


@pytest.mark.slow
def test_towers_and_a_mapped_cache_are_shared(place, tmp_path):
    method = {**TAMP, "solver": "sparsegpt", "correction": {"tau": 0.5}}
    options = {"towers": {"sparsity": 0.3}, "cache": {"limit_gb": 0}}
    check(place, tmp_path, method, 5, 2, **options)


@pytest.mark.slow
def test_two_nodes_that_share_no_folder_do_the_same(place, tmp_path):
    """Two agents with addresses of their own, each with a copy of checkpoint and samples in a folder of its own."""
    one, agents = write(place, recipe(place, TAMP, 5)), []
    run_recipe(str(one), [f"--out={tmp_path / 'one'}"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    for rank in range(2):
        node = tmp_path / f"node-{rank}"
        shutil.copytree(place, node)
        path = write(node, recipe(node, TAMP, 5))
        agent = [
            *("torch.distributed.run", "--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=1"),
            *("--master-addr=127.0.0.1", f"--master-port={port}", f"--local-addr=127.0.0.{rank + 2}"),
        ]
        run = ["tamp_lightning", "run", str(path), "--out=out", "--trainer.devices=1", "--trainer.num_nodes=2"]
        command = [sys.executable, "-m", *agent, "-m", *run]
        agents.append(
            subprocess.Popen(command, env=environment, cwd=node, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
    outputs = [agent.communicate(timeout=LIMIT)[0].decode() for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], outputs
    assert content(tmp_path / "node-0" / "out") == content(tmp_path / "one")
    assert not (tmp_path / "node-1" / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["whole", "layer_wise"])
def test_scores_are_those_of_one_process(place, tmp_path, mode):
    scores = {"benchmarks": "easy_vqa", "split": "selection", "slice": "quick", "batch_size": 32, "mode": mode}
    one, several = check(place, tmp_path, WANDA, 4, 3, scores=scores)
    assert json.loads((one / "metrics.json").read_text()) == json.loads((several / "metrics.json").read_text())
    first, second = (parquet.read_table(out / "predictions.parquet").to_pylist() for out in (one, several))
    assert first == second
    assert len(first) > 100


@pytest.mark.slow
@pytest.mark.parametrize("sample", [0, 3])
def test_an_error_in_one_process_ends_all_with_one_line(place, tmp_path, sample):
    wanted = json.loads((place / "4.json").read_text())
    wanted[sample]["image"] = "nowhere.png"
    (place / "bad.json").write_text(json.dumps(wanted))
    given = {"source": "llava_json", "path": str(place / "bad.json"), "samples": 4, "batch_size": 1}
    done = start(write(place, recipe(place, WANDA, 4, calibration=given)), tmp_path / "out", 2)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stdout.splitlines() == [f"run folder: {tmp_path / 'out'}"]
    assert "nowhere.png" in done.stderr
    assert not (tmp_path / "out").exists()


REFUSED = {
    "processes": ([], WANDA, 5, "5 calibration batches can be shared by 5"),
    "spawn": (["--trainer.strategy=ddp_spawn"], WANDA, 2, "trainer.strategy is DDPStrategy by spawn"),
}


@pytest.mark.parametrize(("overrides", "method", "processes", "complaint"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_shared_is_refused(place, tmp_path, capsys, overrides, method, processes, complaint):
    path = write(place, recipe(place, method, 5))
    devices = f"--trainer.devices={processes + (complaint[0] == '5')}"
    with pytest.raises(SystemExit) as exit_:
        run_recipe(str(path), [f"--out={tmp_path / 'out'}", devices, *overrides])
    err = capsys.readouterr().err
    assert (exit_.value.code, err.count("\n")) == (2, 1)
    assert complaint in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "restarts", "complaint"),
    [
        (["--cache.limit_gb=1"], "0", "cache.limit_gb is 1.0; processes need a folder that all know"),
        ([], "2", "torchrun may restart this run, which would not find its folder again: give it one with --out"),
        (["--out=out"], "2", "whose processes would look for those of the attempt before: set TORCH_DISABLE_SHARE"),
    ],
)
def test_what_processes_would_not_find_again_is_refused(
    place, tmp_path, capsys, monkeypatch, options, restarts, complaint
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", restarts)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with pytest.raises(SystemExit) as exit_:
        run_recipe(str(write(place, recipe(place, WANDA, 5))), ["--trainer.devices=2", *options])
    err = capsys.readouterr().err
    assert (exit_.value.code, err.count("\n")) == (2, 1)
    assert complaint in err
    assert list(tmp_path.iterdir()) == []


def test_the_python_door_is_for_one_process(place, tmp_path):
    batch = {"input_ids": torch.tensor([[1, 2, 3]])}
    with pytest.raises(ValueError, match="trainer asks for 2 processes: set devices to 1"):
        prune(place / "checkpoint", [batch], out=tmp_path / "out", accelerator="cpu", devices=2)
    assert list(tmp_path.iterdir()) == []
