"""Which option a reply names, by every rule."""

import pytest
import torch

from tamp_lightning.metrics import EXTRACTORS, ChoiceAccuracy, extractor

FOUR = ["cat", "dog", "cow", "owl"]


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_no_rule_guesses(name):
    assert extractor(name)("", FOUR) == -1
    assert extractor(name)("?!", FOUR) == -1


@pytest.mark.parametrize(
    ("name", "reply", "number"),
    [
        ("ai2d", "(B)", 1),
        ("ai2d", "b", 1),
        ("muirbench", "(B)", -1),
        ("first_char", "b", 1),
        ("mmbench_static", "I choose A, B or D: B", 1),
        ("mmbench_lmms", "A dog", 0),
        ("vlmevalkit", "I'm sorry, but without the image provided", 25),
        ("mmmu", "it is neither the cat nor the dog", 1),
        ("egoschema", "it is neither the cat nor the dog", 0),
        ("videollama2_mvbench", "Well, B", -1),
        ("videollama2_perceptiontest", "DOG", 1),
        ("word_boundary", "BAD (D)", 3),
    ],
)
def test_letter_rules(name, reply, number):
    assert extractor(name)(reply, FOUR) == number


ONE = torch.tensor([0])
LETTERS = {"A": 0, "B": 1, "C": 0, "sky": 1, "B. the sky": 1, "Zzz.": 0}


@pytest.mark.parametrize("rule", ["mmbench_lmms", "videollama2_mvbench", "videollama2_videomme"])
@pytest.mark.parametrize("reply", LETTERS)
def test_options_may_begin_at_b(rule, reply):
    """As in the table: the letter is that of the column, and the column without a text cannot be named."""
    metric = ChoiceAccuracy(1, extractor(rule))
    metric.update(ONE, [reply], torch.tensor([1]), [["", "sky", "sea"]])
    found = metric.compute()
    assert found["accuracy"] == LETTERS[reply]
    assert found["unparsed"] == (reply in ("A", "Zzz."))
