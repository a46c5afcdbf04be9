"""Questions about clips in the benchmarks' wordings."""

from types import SimpleNamespace

import pytest

from tamp_lightning.testbeds.clip_training import FORMS, KINDS, WordedClips, worded
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


def test_a_clip_is_asked_more_often_than_it_has_questions(monkeypatch):
    packed = []
    monkeypatch.setattr("tamp_lightning.testbeds.clip_training.pack_video", lambda *given: packed.append(given[2]))
    bank = SimpleNamespace(processor=None, count=8, features=lambda number: {})
    clips = WordedClips(bank, 20, 8)
    for index in range(len(clips)):
        _, kinds = clips[index]
        turns = packed[-1]
        assert len(turns) == len(kinds) == 8
        letters = [len(answer) == 1 for _, answer in turns]
        assert [KINDS[kind] == "letter" for kind in kinds] == letters
    assert clips[3][1] == clips[3][1]
    asked = [turn for turns in packed for turn in turns]
    assert 0.5 < sum(len(answer) == 1 for _, answer in asked) / len(asked) < 0.75


def test_no_clip_is_asked_more_than_each_question_three_times(monkeypatch):
    monkeypatch.setattr("tamp_lightning.testbeds.clip_training.pack_video", lambda *given: given[2])
    turns, kinds = WordedClips(SimpleNamespace(processor=None, count=1, features=lambda number: {}), 1, 1000)[0]
    assert len(turns) == len(kinds) == 3 * len(questions(make_clip("train", 0)))
