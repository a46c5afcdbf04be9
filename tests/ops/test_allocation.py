import json
import math
import random
from pathlib import Path

import pytest

from tamp_lightning.ops.allocation import allocate, to_counts

GOLDENS = json.loads((Path(__file__).parents[1] / "goldens" / "allocation.json").read_text())
LLAMA3_8B = {"q": 16, "k": 4, "v": 4, "o": 16, "gate": 56, "up": 56, "down": 56}  # in 2**20 weights


@pytest.mark.parametrize("case", GOLDENS, ids=lambda c: f"{c['name']}-{c['target']}")
def test_goldens(case):
    sizes = {k: rows * columns for k, (rows, columns) in case["shapes"].items()}
    kept = allocate(case["scores"], sizes, sparsity=case["target"], cap=case["cap"])
    assert sum(kept.values()) == round(sum(sizes.values()) * (1 - case["target"]))
    for name, size in sizes.items():
        assert abs(kept[name] - round(size * (1 - case["sparsity"][name]))) <= len(sizes)


@pytest.mark.parametrize(
    ("sparsity", "expected"), [(0.5, (0, 40.0, 54.3)), (0.6, (0, 51.0, 64.6)), (0.7, (5.7, 61.4, 74.7))]
)
def test_constant_scores_on_llama3_8b_protect_small_linears(sparsity, expected):
    sizes = {f"{i}.{k}": m << 20 for i in range(32) for k, m in LLAMA3_8B.items()}
    kept = allocate(dict.fromkeys(sizes, 1.0), sizes, sparsity=sparsity, cap=sparsity + 0.1)
    per_cent = {k: 100 * (1 - kept[k] / n) for k, n in sizes.items()}
    for name, value in per_cent.items():
        kind = {"k": 0, "v": 0, "q": 1, "o": 1}.get(name.split(".")[1], 2)
        assert value == pytest.approx(expected[kind], abs=0.05)


def random_case(draw):
    sizes = {f"l{i}": draw.choice([1, 7, 100, 4097, 10**6]) for i in range(draw.randint(1, 12))}
    sparsity = draw.choice([0.0, 0.3, 0.5, 0.7, draw.random() * 0.99])
    cap = draw.choice([None, sparsity, min(sparsity + 0.1, 1.0), 1.0])
    floor = draw.choice([0.0, sparsity, sparsity * draw.random()])
    return sizes, sparsity, cap, floor


def check(kept, sizes, sparsity, cap, floor):
    assert sum(kept.values()) == round(sum(sizes.values()) * (1 - sparsity))
    assert list(kept) == list(sizes)
    for name, count in kept.items():
        assert isinstance(count, int)
        assert 0 <= count <= sizes[name]
        # within a weight: whole weights cannot always meet a bound that equals the target
        assert count >= sizes[name] * (1 - (1.0 if cap is None else cap)) - 1 - 1e-6
        assert count <= sizes[name] * (1 - floor) + 1 + 1e-6


def test_allocate_meets_budget_and_bounds():
    draw = random.Random(0)
    for _ in range(600):
        sizes, sparsity, cap, floor = random_case(draw)
        scores = {k: draw.choice([0.0, 1.0, draw.random(), 1e-30, 1e30]) for k in sizes}
        scores[draw.choice(list(sizes))] = 1.0
        kept = allocate(scores, sizes, sparsity=sparsity, cap=cap, floor=floor, size_weighted=draw.random() < 0.5)
        check(kept, sizes, sparsity, cap, floor)
        backwards = dict(reversed(sizes.items()))
        if list(scores.values()).count(0.0) == 0 and len(set(scores.values())) == len(scores):
            assert allocate(scores, backwards, sparsity=sparsity, cap=cap, floor=floor) == allocate(
                scores, sizes, sparsity=sparsity, cap=cap, floor=floor
            )


def test_to_counts_meets_budget_and_bounds():
    draw = random.Random(1)
    for _ in range(600):
        sizes, sparsity, cap, floor = random_case(draw)
        ratios = {k: sparsity + draw.uniform(-0.4, 0.4) for k in sizes}
        kept = to_counts(ratios, sizes, total_sparsity=sparsity, cap=cap, floor=floor)
        check(kept, sizes, sparsity, cap, floor)


def test_cap_and_floor_hold_exactly_where_there_is_room():
    sizes = dict.fromkeys("abcd", 1000)
    scores = {"a": 1000.0, "b": 1.0, "c": 1.0, "d": 0.0}
    kept = allocate(scores, sizes, sparsity=0.5, cap=0.7, floor=0.2)
    assert kept == {"a": 800, "b": 450, "c": 450, "d": 300}


def test_allocate_by_hand():
    sizes = {"small": 100, "large": 400}
    # 250 kept; cap .6 guarantees 40 and 160; the other 50 are split 3 to 2
    assert allocate({"small": 3, "large": 2}, sizes, sparsity=0.5, cap=0.6) == {"small": 70, "large": 180}
    # by size too, 300 to 800
    kept = allocate({"small": 3, "large": 2}, sizes, sparsity=0.5, cap=0.6, size_weighted=True)
    assert kept == {"small": 54, "large": 196}
    # a score of zero still gets what the full one cannot take
    assert allocate({"small": 1, "large": 0}, sizes, sparsity=0.5) == {"small": 100, "large": 150}


def test_to_counts_by_hand():
    sizes = {"a": 100, "b": 100, "c": 200}
    ratios = {"a": 0.2, "b": 0.4, "c": 0.6}  # mean .45, shifted by .05
    assert to_counts(ratios, sizes, total_sparsity=0.5) == {"a": 75, "b": 55, "c": 70}
    assert to_counts(ratios, sizes, total_sparsity=0.5, cap=0.6) == {"a": 70, "b": 50, "c": 80}


GOOD = {"scores": {"a": 1.0, "b": 2.0}, "sizes": {"a": 10, "b": 20}, "sparsity": 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsity": 1.0}, "sparsity is 1.0"),
        ({"sparsity": -0.1}, "sparsity is -0.1"),
        ({"sparsity": math.nan}, "sparsity is nan"),
        ({"scores": {"a": math.nan, "b": 1.0}}, "score of a is nan"),
        ({"scores": {"a": math.inf, "b": 1.0}}, "score of a is inf"),
        ({"scores": {"a": -1.0, "b": 1.0}}, "score of a is -1.0"),
        ({"scores": {"a": 0.0, "b": 0.0}}, "all scores are 0"),
        ({"scores": {"a": 1.0}}, "different linears, such as b"),
        ({"scores": {}, "sizes": {}}, "no linear"),
        ({"sizes": {"a": 0, "b": 20}}, "a has 0 weights"),
        ({"cap": 0.4}, "cap is 0.4"),
        ({"cap": 1.1}, "cap is 1.1"),
        ({"floor": 0.6}, "floor is 0.6"),
        ({"floor": -0.1}, "floor is -0.1"),
    ],
)
def test_refuses_in_one_line(change, message):
    arguments = {**GOOD, **change}
    with pytest.raises(ValueError, match=message) as error:
        allocate(**arguments)
    assert "\n" not in str(error.value)
    if "score" not in message:
        arguments["total_sparsity"] = arguments.pop("sparsity")
        ratios = dict.fromkeys(arguments.pop("scores"), 0.5)
        with pytest.raises(ValueError, match=message):
            to_counts(ratios, **arguments)


def test_to_counts_refuses_nan_ratios():
    with pytest.raises(ValueError, match="sparsity of b is nan"):
        to_counts({"a": 0.5, "b": math.nan}, {"a": 10, "b": 20}, total_sparsity=0.5)
