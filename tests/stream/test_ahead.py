"""A block that is read ahead is the block that would have been read."""

import threading

import pytest
import torch

from tamp_lightning.errors import InputError
from tamp_lightning.passes.trainer import prune_stream
from tamp_lightning.stream.ahead import Ahead
from tamp_lightning.stream.disk import DiskStream

from ..conftest import TAMP, WANDA, calibration, toys
from .conftest import make_llama, prune, save, tensors_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("method", [WANDA, TAMP], ids=["wanda", "tamp"])
def test_a_run_that_reads_ahead_writes_the_same_files(tmp_path, monkeypatch, method):
    source, taken, take = save(make_llama(), tmp_path / "source", sharded=True), [], Ahead.take

    def noted(self, index, version):
        found = take(self, index, version)
        taken.append((index, found is not None))
        return found

    monkeypatch.setattr(Ahead, "take", noted)
    files = {}
    for ahead in (False, True):
        stream = DiskStream(source, tmp_path / f"out-{ahead}", ahead=ahead)
        data = calibration(toys("ttt"), 2)
        files[ahead] = prune_stream(stream, data, method, progress=False, accelerator="cpu").files
    assert files[False] == files[True]
    # the first block of every walk is asked for before anybody could know
    walks = 1 + len(method.measure_stages)
    assert [index for index, found in taken if found] == [1, 2] * walks
    assert [index for index, found in taken if not found] == [0] * walks


def test_only_the_version_that_was_asked_for_is_taken(llama_folder, tmp_path):
    stream = DiskStream(llama_folder, tmp_path / "out", ahead=True)
    dense = tensors_of(llama_folder)
    prune(stream)
    for index in (0, 1, 2):
        stream.release(index)
    stream.load(0)  # and the pruned second block is on its way
    weight = stream.load(1, dense=True).get_parameter("self_attn.q_proj.weight")
    assert torch.equal(weight, dense["model.layers.1.self_attn.q_proj.weight"])
    stream.release(1)
    stream.release(0)
    stream.load(0)
    pruned = stream.load(1).get_parameter("self_attn.q_proj.weight")
    assert int((pruned == 0).sum()) > weight.numel() // 3


def test_reading_goes_on_while_others_work_and_an_error_comes_when_the_block_is_wanted():
    go, calls = threading.Event(), []

    def read(index, version):
        assert go.wait(20)
        calls.append((index, version))
        if index == 2:
            raise InputError("the file is gone")
        return {"weight": torch.full((2,), float(index))}

    ahead = Ahead(read, CPU)
    ahead.start(1, "a")
    ahead.start(1, "a")
    assert calls == []
    assert ahead.take(1, "b") is None
    go.set()
    assert ahead.take(1, "a")["weight"].tolist() == [1, 1]
    assert ahead.take(1, "a") is None
    assert calls == [(1, "a")]
    ahead.start(2, "a")
    with pytest.raises(InputError, match="the file is gone"):
        ahead.take(2, "a")
    ahead.close()


def test_on_a_cpu_nothing_is_read_ahead(llama_folder, tmp_path):
    assert DiskStream(llama_folder, tmp_path / "out")._ahead is None
