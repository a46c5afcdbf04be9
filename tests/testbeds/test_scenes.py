"""Scenes: what they show is drawn where they say, is the same every time, and differs from split to split."""

from collections import Counter

import numpy as np

from tamp_lightning.data.easy_vqa import COLOURS
from tamp_lightning.testbeds.scenes import RGB, SIDE, Scene, Thing, Writing, draw_scene, scene


def count_pixels(picture, colour, place):
    x, y = 32 * (place % 2), 32 * (place // 2)
    part = np.asarray(picture)[y : y + 32, x : x + 32]
    return int((part == RGB[colour]).all(-1).sum())


def test_a_scene_follows_from_its_split_and_number():
    assert scene("train", 5) == scene("train", 5)
    assert draw_scene(scene("train", 5)).tobytes() == draw_scene(scene("train", 5)).tobytes()
    shown = [{scene(split, k).things for k in range(200)} for split in ("train", "calibration", "selection", "test")]
    assert sum(len(s) for s in shown) > len(set.union(*shown)) - 20
    pixels = {draw_scene(scene(split, k)).tobytes() for split in ("train", "test") for k in range(100)}
    assert len(pixels) == 200


def test_every_thing_is_in_its_quarter_and_large_is_larger():
    things = (Thing("circle", "red", "small", 0), Thing("rectangle", "blue", "large", 3))
    for number in range(20):
        picture = draw_scene(Scene("test", number, things, None))
        assert picture.size == (SIDE, SIDE)
        assert [count_pixels(picture, "red", p) > 0 for p in range(4)] == [True, False, False, False]
        assert count_pixels(picture, "blue", 3) > 2 * count_pixels(picture, "red", 0) > 100


def test_writing_is_in_its_half():
    for text, halves in (("moon", (2, 3)), ("7", (1,))):
        picture = draw_scene(Scene("test", 3, (), Writing(text, "black", halves[0])))
        inked = {p for p in range(4) if count_pixels(picture, "black", p) > 5}
        assert inked == set(halves)


def test_things_never_share_a_quarter_with_anything():
    for number in range(500):
        shown = scene("selection", number)
        places = [t.place for t in shown.things]
        if shown.writing is not None:
            places.append(shown.writing.place)
            if not shown.writing.is_digit:
                places.append(shown.writing.place + 1)
        assert len(places) == len(set(places))
        assert 1 <= len(shown.things) <= 4


def test_counts_and_colours_are_alike_often():
    shown = [scene("train", k) for k in range(2000)]
    counts = Counter(len(s.things) for s in shown)
    assert max(counts.values()) - min(counts.values()) < 100
    colours = Counter(t.colour for s in shown for t in s.things)
    assert set(colours) == set(COLOURS)
    assert max(colours.values()) < 1.25 * min(colours.values())
