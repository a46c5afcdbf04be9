"""Chance levels by hand."""

from dataclasses import replace

import pytest

from tamp_lightning.benchmarks.chance import chance_level, guess
from tamp_lightning.benchmarks.registry import BENCHMARKS
from tamp_lightning.data.readers.item import Item


def items(options, circles):
    return [Item(str(k), "?", 0, options, circle=circle) for k, circle in enumerate(circles)]


def test_every_question_counts_alone():
    four, two = items(("a", "b", "c", "d"), [""]), items(("a", "", "c"), [""])
    assert guess(BENCHMARKS["scienceqa_img"], two[0]) == 0.5, "a letter without an option is no candidate"
    assert chance_level(BENCHMARKS["scienceqa_img"], [*four, *two]) == pytest.approx((0.25 + 0.5) / 2)


def test_all_rotations_have_to_be_guessed():
    asked = items(("a", "b", "c", "d"), ["7"] * 4) + items(("a", "b"), ["8"] * 2)
    assert chance_level(BENCHMARKS["mmbench"], asked) == pytest.approx((0.25**4 + 0.5**2) / 2)


def test_a_pair_of_mme():
    assert chance_level(BENCHMARKS["mme"], items((), ["p", "p"])) == pytest.approx(0.375)


def test_free_answers_have_none():
    asked = [Item("1", "?", "red")]
    assert chance_level(BENCHMARKS["vqav2"], asked) == 0
    assert chance_level(replace(BENCHMARKS["pope"], candidates=None), asked) == 0
