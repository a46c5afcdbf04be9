"""Passes say what they are for, and callbacks hear of the passes that concern them alone."""

from types import SimpleNamespace

import pytest

from tamp_lightning.methods.method import Method
from tamp_lightning.passes.contract import BlockPass, Pass, PassCallback
from tamp_lightning.passes.module import _passes


def told(passes):
    return [(p.kind, p.block, p.stage, "f" * p.is_first + "l" * p.is_last) for p in passes]


def test_every_pass_knows_whether_it_is_the_first_or_last_over_its_block():
    passes = _passes(Method(tokens="atv", allocation="uniform"), blocks=2, measured=0, pruned=0)
    assert told(passes) == [
        ("prune", 0, "drift", "f"),
        ("prune", 0, "collect", "l"),
        ("prune", 1, "drift", "f"),
        ("prune", 1, "collect", "l"),
    ]
    assert [p.prunes for p in passes] == [False, True, False, True]
    assert [p.starts_pruning for p in passes] == [True, False, False, False]


def test_a_run_that_goes_on_replays_what_is_pruned():
    passes = _passes(Method(), blocks=3, measured=3, pruned=2)
    assert told(passes) == [("prune", 0, "replay", "fl"), ("prune", 1, "replay", "fl"), ("prune", 2, "collect", "fl")]
    assert [p.prunes for p in passes] == [False, False, True]
    assert [p.collects for p in passes] == [False, False, True]
    assert not any(p.is_dense for p in passes)


def test_dense_blocks_are_measured_before_and_in_one_shot_meanwhile():
    passes = _passes(Method(), blocks=1, measured=0, pruned=0)
    assert [(p.kind, p.measures) for p in passes] == [("measure", True), ("prune", False)]
    (at_once,) = _passes(Method(mode="one_shot"), blocks=1, measured=0, pruned=0)
    assert (at_once.measures, at_once.collects, at_once.prunes) == (True, True, True)


class Heard(PassCallback):
    def __init__(self):
        self.events = []

    def wanted(self, now):
        return now.collects

    def pass_starts(self, pl_module):
        self.events.append("start")

    def batch_passed(self, pl_module, batch, batch_idx):
        self.events.append(batch_idx)

    def pass_ends(self, pl_module):
        self.events.append("end")


@pytest.mark.parametrize(("stage", "heard"), [("collect", ["start", 0, "end"]), ("drift", []), ("replay", [])])
def test_a_callback_hears_of_its_passes_and_of_batches_that_are_there(stage, heard):
    callback, module = Heard(), SimpleNamespace(now=Pass("prune", 0, stage, False), no_batch=False)
    callback.on_train_epoch_start(None, module)
    callback.on_train_batch_end(None, module, None, {}, 0)
    module.no_batch = True
    callback.on_train_batch_end(None, module, None, {}, 1)
    callback.on_train_epoch_end(None, module)
    assert callback.events == heard


def test_another_batch_is_current_only_for_as_long_as_it_is_looked_at():
    module = SimpleNamespace(current="own")
    with BlockPass.seeing(module, "other"):
        assert module.current == "other"
    assert module.current == "own"
