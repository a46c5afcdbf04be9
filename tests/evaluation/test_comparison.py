"""Rows become units, units become figures: rotations and pairs, chance, what has no interval."""

import math

import pytest

from tamp_lightning.evaluation.comparison import Scored, unit_rows


def row(unit, dense, pruned, benchmark="b", picture=None, **more):
    return {"benchmark": benchmark, "id": f"{unit}{dense}{pruned}", "unit": unit, "picture": picture or unit,
            "dense_score": dense, "pruned_score": pruned, **more}  # fmt: skip


def test_all_rotations_have_to_be_right_and_a_lost_one_is_shown():
    rows = [row("q", 1.0, 1.0, question="first"), row("q", 1.0, 0.0, question="second"), row("r", 1.0, 1.0)]
    units = unit_rows(rows, {"b": "all"})
    assert [(u["id"], u["dense_score"], u["pruned_score"]) for u in units] == [("q", 1.0, 0.0), ("r", 1.0, 1.0)]
    assert units[0]["question"] == "second"
    assert unit_rows(rows, {}) == rows


def test_a_pair_gives_half_of_its_points():
    rows = [row("p", 1.0, 1.0), row("p", 1.0, 0.0)]
    assert [(u["dense_score"], u["pruned_score"]) for u in unit_rows(rows, {"b": "pair"})] == [(1.0, 0.25)]


def test_units_that_one_model_was_not_asked_are_left_out():
    rows = [row("q", 1.0, None), row("q", 1.0, 1.0), row("r", 1.0, 0.0)]
    assert [u["id"] for u in unit_rows(rows, {"b": "all"})] == ["r"]


def test_questions_about_one_picture_have_no_interval():
    metrics = {"benchmarks": {"b": {"floor": 0.25}}, "fidelity": None}
    scored = Scored(metrics, [row(k, 1.0, float(k > 0), picture="same") for k in range(4)])
    [own] = scored.benchmarks
    assert own.change.mean == -0.25
    assert math.isnan(own.change.low)
    assert scored.verdict == own.verdict == "no difference shown"
    assert scored.retention.value == 75
    assert scored.above.value == pytest.approx(100 * 0.5 / 0.75)
    assert scored.kl is None
    assert scored.kl_interval is None


def test_rows_of_version_0_1_0_are_read():
    old = [{"benchmark": "yes_no", "id": k, "picture": k // 2, "question": "?", "answer": "yes", "dense": "yes",
            "pruned": "no", "kl": 0.5, "dense_score": 1.0, "pruned_score": float(k % 2)} for k in range(8)]  # fmt: skip
    metrics = {"benchmarks": {"yes_no": {"floor": 0.5, "dense": 1.0, "pruned": 0.5}}, "fidelity": {"kl": 0.5}}
    scored = Scored(metrics, old)
    assert scored.rows == old
    assert (scored.retention.value, scored.kl, scored.kl_interval.value) == (50, 0.5, 0.5)
