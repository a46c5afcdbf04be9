"""Phases of a run, with a clock that is told the time."""

import pytest

from tamp_lightning.runs import clock
from tamp_lightning.runs.clock import PhaseClock


def test_phases_add_up(monkeypatch):
    times = iter([0.0, 2.0, 10.0, 13.0, 20.0, 21.0])
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(times))
    own = PhaseClock()
    for name in ("prune", "score", "prune"):
        with own.phase(name):
            pass
    assert own.seconds == {"prune": 3.0, "score": 3.0}


def test_a_phase_that_failed_is_no_time():
    own = PhaseClock()
    with pytest.raises(KeyError), own.phase("prune"):
        raise KeyError
    assert own.seconds == {}
