"""Answers on disk: log-probabilities keep their bits, the cache keeps its size."""

import os

import torch

from tamp_lightning.evaluation.records import Record
from tamp_lightning.evaluation.store import Store, trim


def filled(folder, name, age, size=1000):
    store = Store(folder / "abcd", name, {})
    store.start()
    store.append(0, [Record(3, "x"), Record(1, "y")], {3: torch.rand(2, size), 1: torch.rand(1, size)})
    store.finish(1.5)
    os.utime(store.folder, (age, age))
    return store


def test_log_probs_keep_their_bits_and_are_found_by_position(tmp_path):
    store, rows = Store(tmp_path, "t", {}), {5: torch.randn(3, 7), 2: torch.randn(1, 7)}
    store.start()
    store.append(0, [Record(5, "a"), Record(2, "b")], rows)
    store.append(1, [Record(9, "c")], {9: torch.ones(1, 7)})
    held = store.log_probs()
    assert sorted(held) == [2, 5, 9]
    assert all(torch.equal(held[position], rows[position]) for position in rows)
    store.finish(2.0)
    assert (store.finished, store.seconds) == (True, 2.0)
    assert list(store.records()) == [2, 5, 9]
    assert not list(store.folder.glob("part-*"))


def test_what_was_used_longest_ago_goes_first_and_what_is_in_use_stays(tmp_path):
    old, middle, new = (filled(tmp_path, name, age) for name, age in (("old", 1), ("middle", 2), ("new", 3)))
    each = sum(f.stat().st_size for f in old.folder.glob("log_probs-*"))
    trim(tmp_path, [], 3 * each)
    assert old.folder.is_dir()
    trim(tmp_path, [old.folder], 2 * each)
    assert [s.folder.is_dir() for s in (old, middle, new)] == [True, False, True]
    middle = filled(tmp_path, "middle", 2)
    old.touch()
    trim(tmp_path, [], each)
    assert [s.folder.is_dir() for s in (old, middle, new)] == [True, False, False]
