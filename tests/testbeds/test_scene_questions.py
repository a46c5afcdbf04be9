"""Questions about scenes: right by hand on one scene, by search on many, and their words do not tell the answer."""

import random
from collections import Counter, defaultdict

import pytest

from tamp_lightning.testbeds.scene_questions import ASKERS, YES_NO, ask, comparison, pair, position, reading
from tamp_lightning.testbeds.scenes import PLACES, Scene, Thing, Writing, scene

CIRCLE, TRIANGLE = Thing("circle", "red", "small", 0), Thing("triangle", "blue", "large", 1)
SHOWN = Scene("test", 0, (CIRCLE, TRIANGLE), Writing("sun", "teal", 2))


def asked(asker, shown=SHOWN):
    return {(q.text, q.answer) for k in range(60) for q in asker(shown, random.Random(k))}


def test_a_scene_by_hand():
    assert asked(position) == {
        ("What is the color of the shape in the top left of the image?", "red"),
        ("What is the color of the shape in the top right of the image?", "blue"),
        ("Is the circle to the left or to the right of the triangle?", "left"),
        ("Is the triangle to the left or to the right of the circle?", "right"),
    }
    assert asked(comparison) == {
        ("Do all shapes have the same color?", "no"),
        ("Which is larger, the circle or the triangle?", "triangle"),
        ("Which is larger, the triangle or the circle?", "triangle"),
    }
    assert asked(reading) == {("What word is written in the image?", "sun")}
    assert asked(pair) == {
        ("What is the color of the writing?", "teal"),
        ("What is the color of the circle?", "red"),
        ("What is the color of the triangle?", "blue"),
        ("What is the shape of the red object?", "circle"),
        ("What is the shape of the blue object?", "triangle"),
    }


def test_above_and_below():
    shown = Scene("test", 0, (CIRCLE, Thing("rectangle", "red", "small", 2)), None)
    texts = asked(position, shown)
    assert ("Is the circle above or below the rectangle?", "above") in texts
    assert ("Is the rectangle above or below the circle?", "below") in texts


def test_two_alike_are_never_told_apart_by_what_they_share():
    shown = Scene("test", 0, (CIRCLE, Thing("circle", "red", "large", 3)), None)
    assert asked(pair, shown) == set()
    assert all(text.startswith("Do all") for text, _ in asked(comparison, shown))


@pytest.mark.parametrize("number", range(40))
def test_existence_is_what_the_scene_shows(number):
    shown = scene("train", number)
    found = {f"Is there a {t.colour} {t.shape} in the image?" for t in shown.things}
    for text, answer in asked(ASKERS["exist"], shown):
        assert (text in found) == (answer == "yes")


def test_every_quarter_is_named_by_its_place():
    for place, name in enumerate(PLACES):
        shown = Scene("test", 0, (Thing("circle", "gray", "small", place),), None)
        assert asked(position, shown) == {(f"What is the color of the shape in the {name} of the image?", "gray")}


def test_answers_of_a_kind_are_alike_often():
    counts = defaultdict(Counter)
    for number in range(3000):
        for q in ask(scene("train", number), random.Random(number)):
            assert q.answer in q.candidates
            counts[q.kind, q.candidates][q.answer] += 1
    assert {kind for kind, _ in counts} == set(ASKERS)
    for (kind, candidates), votes in counts.items():
        share = max(votes.values()) / votes.total()
        assert share < (0.55 if candidates == YES_NO else 1.5 / min(len(candidates), len(votes))), (kind, votes)
