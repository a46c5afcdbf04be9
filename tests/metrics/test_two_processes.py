"""Real reduction over two gloo processes, one of which has no data."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tamp_lightning.metrics import AnswerScore, DenseFidelity, LikelihoodChoice, scorer


def work(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    score, tokens, choice = AnswerScore(3, scorer("exact")), DenseFidelity(), LikelihoodChoice(2)
    if rank == 0:
        score.update(torch.tensor([0, 2]), ["a", "x"], ["a", "b"])
        tokens.update(torch.zeros(2, 4), torch.zeros(2, 4), torch.tensor([1, -100]))
        choice.update(torch.tensor([1]), torch.tensor([[1.0, 3.0]]), torch.ones(1, 2), torch.tensor([0]))
    result = {**score.compute(), **tokens.compute(), "margin": choice.compute()["margin"]}
    values = score.values()
    torch.save({"result": result, "values": values, "local": score.code}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_both_processes_get_the_whole_result(tmp_path):
    # Not `torch.multiprocessing`: its children cannot import a test module by name.
    command = [sys.executable, str(Path(__file__).resolve())]
    running = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in range(2)]
    try:
        assert [process.wait(timeout=120) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert {name: value.item() for name, value in second["result"].items()} == pytest.approx(
        {
            "score": 0.5,
            "coverage": 2 / 3,
            "nll_dense": 1.3862944,
            "nll_pruned": 1.3862944,
            "kl": 0.0,
            "top1_agreement": 1.0,
            "margin": 2.0,
        },
        abs=1e-6,
    )
    assert first["result"] == second["result"]
    assert first["values"].nan_to_num(-1).tolist() == second["values"].nan_to_num(-1).tolist() == [1, -1, 0]
    assert second["local"].tolist() == [-1, -1, -1]


if __name__ == "__main__":
    work(int(sys.argv[1]), sys.argv[2])
