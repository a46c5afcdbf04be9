"""Benchmarks by name, and with the question alone."""

import pytest

from tamp_lightning.benchmarks.registry import BENCHMARKS, check_names, question_alone
from tamp_lightning.data.readers.item import Item

CHOICE = Item("1", "Which is IT?", 1, ("one.", "two."), hint="A hint.")


OPEN = Item("2", "What is the NAME?", ("a",))


def test_question_alone_compares_the_options_texts():
    benchmark = question_alone(BENCHMARKS["mmbench"])
    assert benchmark.prompt(CHOICE) == "Which is IT?"
    assert benchmark.continuations(CHOICE) == ("one.", "two.")
    assert benchmark.candidates(CHOICE) == "AB"
    assert question_alone(BENCHMARKS["pope"]).continuations(OPEN) == ("yes", "no")
    assert question_alone(BENCHMARKS["textvqa"]).continuations is None


NAMES = {
    (
        "mmbnech",
    ): r"benchmarks has 'mmbnech', expected easy_vqa, easy_vqa_forms, skills, .*mmbench.* \(did you mean 'mmbench'\?\)",
    (): "benchmarks is empty; choose from easy_vqa",
    ("pope", "mme", "pope"): "benchmarks names one twice",
}


@pytest.mark.parametrize(("names", "message"), NAMES.items())
def test_names_are_checked(names, message):
    with pytest.raises(ValueError, match=message):
        check_names(list(names))
