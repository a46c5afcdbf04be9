"""What processes tell each other: alone, and two over gloo."""

import json
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tamp_lightning.distributed.collectives import all_gather, broadcast, broadcast_outside, check_same, gather_by_id
from tamp_lightning.distributed.partition import BatchPartition


def told(rank, processes):
    """What every call says to one process, as JSON values."""
    own = BatchPartition(processes, rank, processes)
    rows = {} if rank else {3: torch.tensor([1.0, 2.0]), 5: torch.tensor([3.0, 4.0])}
    check_same(own, ["q", "k"])
    try:
        check_same(own, ["q", "k"][: 2 - rank])
        refusal = None
    except ValueError as error:
        refusal = str(error)
    gathered = {str(number): row.tolist() for number, row in gather_by_id(own, rows).items()}
    return [all_gather(own, rank), broadcast(own, rank), broadcast_outside(rank), gathered, refusal]


ROWS = {"3": [1.0, 2.0], "5": [3.0, 4.0]}


def test_one_process_tells_itself():
    assert told(0, 1) == [[0], 0, 0, ROWS, None]


def test_two_processes_know_the_same(tmp_path):
    # not `torch.multiprocessing`: its children cannot import a test module by name
    command = [sys.executable, str(Path(__file__).resolve()), str(tmp_path)]
    running = [subprocess.Popen([*command, str(rank)]) for rank in range(2)]
    try:
        assert [process.wait(timeout=120) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    refusal = "k is called by some samples and not by others: set devices: 1, or exclude it"
    assert first == second == [[0, 1], 0, 0, ROWS, refusal]


if __name__ == "__main__":
    folder, number = sys.argv[1:]
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=int(number), world_size=2)
    Path(folder, f"{number}.json").write_text(json.dumps(told(int(number), 2)))
    dist.destroy_process_group()
