"""Hidden states come back with the same bits from wherever they waited."""

import errno
import os
from pathlib import Path

import pytest
import torch

from tamp_lightning import prune
from tamp_lightning.stream.cache import ActivationCache, CachedBatch, CacheSpace
from tamp_lightning.stream.calls import Calls

from ..conftest import as_batch, toys
from .conftest import make_llava, save

MAPS = Path("/proc/self/maps")
OPTIONS = {"progress": False, "accelerator": "cpu"}


def batch(hidden: torch.Tensor) -> CachedBatch:
    rows, length = hidden.shape[:2]
    ids, modality = torch.arange(rows), torch.zeros(rows, length, dtype=torch.int64)
    return CachedBatch(ids, hidden, modality, modality == 0, modality == 0, Calls(({},), (0, 0)), {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_goes_beyond_the_limit_waits_in_files_without_a_name(tmp_path, dtype):
    space = CacheSpace(tmp_path / "files", limit=2 * 3 * 5 * 8 * dtype.itemsize)
    first, second = ActivationCache(space), ActivationCache(space)
    given = [torch.randn(3, 5, 8).to(dtype) for _ in range(4)]
    for index, hidden in enumerate(given):
        (first, second)[index % 2][index] = batch(hidden.clone())
    assert (space.in_ram, space.in_files) == (space.limit, space.limit)
    assert list((tmp_path / "files").iterdir()) == []
    mapped = f"{tmp_path}/files/cache-"
    assert sum(mapped in line and "deleted" in line for line in MAPS.read_text().splitlines()) == 2
    for index, hidden in enumerate(given):
        assert torch.equal((first, second)[index % 2][index].hidden, hidden)
    first.clear(), second.clear()
    assert mapped not in MAPS.read_text()


def test_a_batch_in_use_does_not_change_when_its_successor_is_stored(tmp_path):
    cache = ActivationCache(CacheSpace(tmp_path, limit=0))
    old, new = torch.randn(1, 4, 8), torch.randn(1, 4, 8)
    cache[0] = batch(old.clone())
    current = cache[0]
    cache[0] = current.advanced(new)
    assert torch.equal(current.hidden, old)
    assert torch.equal(cache[0].hidden, new)
    assert next(iter(cache)).index == 1
    longer = torch.randn(1, 6, 8)
    cache[0] = batch(longer)
    assert torch.equal(cache[0].hidden, longer)


@pytest.mark.parametrize(
    "method",
    [
        {},
        {"tokens": "all", "allocation": "ecoflap", "ecoflap": {"samples": 2}},
        {"tokens": "atv", "allocation": "uniform", "solver": "sparsegpt"},
        {"correction": {"tau": 0.5}, "reconstruct": {"steps": 2}},
    ],
    ids=["tamp", "ecoflap", "atv", "corrected"],
)
def test_the_result_does_not_depend_on_where_hidden_states_wait(tmp_path, method):
    source, samples = save(make_llava(), tmp_path / "source", sharded=True), toys("tptp")
    batches = [as_batch(samples[:2]), as_batch(samples[2:3]), as_batch(samples[3:])]
    results = {}
    for name, limit in (("ram", None), ("both", 6e-6), ("files", 0.0)):
        out = tmp_path / name
        prune(source, batches, method=method, out=out, cache_gb=limit, **OPTIONS)
        results[name] = {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert results["ram"] == results["both"] == results["files"]
    assert "masks.safetensors" in results["ram"]


def test_no_room_is_refused_in_one_line(tmp_path, monkeypatch):
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    cache = ActivationCache(CacheSpace(tmp_path, limit=0))
    with pytest.raises(OSError, match=r"cannot map 0\.00 GB .*No space left on device; make room or raise cache"):
        cache[0] = batch(torch.randn(1, 4, 8))
    assert list(tmp_path.iterdir()) == []


def test_a_limit_needs_a_folder():
    with pytest.raises(ValueError, match="needs a folder"):
        CacheSpace(limit=0)


@pytest.mark.gpu
def test_hidden_states_of_a_gpu_wait_in_pinned_memory():
    cache = ActivationCache()
    hidden = torch.randn(2, 4, 8, device="cuda")
    cache[0] = batch(hidden)
    assert cache[0].hidden.is_pinned()
    assert torch.equal(cache[0].to("cuda").hidden, hidden)
