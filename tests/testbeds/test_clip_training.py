"""Questions about clips in the benchmarks' wordings."""

import pytest

from tamp_lightning.testbeds.clip_training import FORMS, worded
from tamp_lightning.testbeds.clips import make_clip, questions

QUESTION = questions(make_clip("train", 0))[0]


def test_a_letter_is_that_of_the_right_option():
    options = ("one", "two", QUESTION.answer, "four")
    text, answer = worded(QUESTION, "options", options)
    assert answer == "C"
    assert f"C. {QUESTION.answer}" in text
    assert "Respond with only the letter (A, B, C, or D)" in text


@pytest.mark.parametrize("form", FORMS[:2])
def test_other_forms_ask_for_the_words(form):
    text, answer = worded(QUESTION, form, QUESTION.options)
    assert text.startswith(QUESTION.text)
    assert answer == QUESTION.answer
    assert (text == QUESTION.text) == (form == "plain")
