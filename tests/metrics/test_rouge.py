"""ROUGE-L by hand."""

import pytest

from tamp_lightning.metrics.rouge import common_subsequence, rouge_l


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [("abcd", "acbd", "acd"), ("ab", "", ""), ("abc", "xyz", ""), ("aa", "a", "a")],
)
def test_one_of_the_longest_common_subsequences(first, second, expected):
    found = "".join(common_subsequence(first, second))
    assert len(found) == len(expected)
    for text in (first, second):
        letters = iter(text)
        assert all(letter in letters for letter in found)


def test_score_by_hand():
    # common: the, sat; two of the three words said, two of the three that are true
    assert rouge_l("the cat sat", "the dog sat") == pytest.approx(2 / 3)
    assert rouge_l("the cat", ["a dog", "the cat"]) == pytest.approx(1)
    assert rouge_l("", "the cat") == 0
    assert rouge_l("The cat", "the dog") == 0, "case counts"


def test_only_the_start_of_a_long_reply_counts():
    assert rouge_l("x " * 256 + "cat", "cat") == 0
