"""Where our metrics disagreed with the reference implementations, with the right values."""

import pytest
import torch

from tamp_lightning.metrics import AnswerScore, ChoiceAccuracy, CircularAccuracy, LikelihoodChoice, extractor, scorer

ONE = torch.tensor([0])


@pytest.mark.parametrize("name", ["vqa_evalai", "vqa_vqav2_lmms", "vqa_official"])
@pytest.mark.parametrize("answers", [[], ["red"], "red"])
def test_vqa_without_other_people_to_agree_with_is_nothing(name, answers):
    """lmms-eval textvqa/utils.py: the mean over no answers is 0; one answer has no others."""
    assert scorer(name)("red", answers) == 0.0


SPACES = [("yes", "yes", 1), ("Yes.", "yes", 1), ("yes ", "yes", 0), (" yes", "yes", 0), ("yes .", "yes", 0),
          ("a  b", "a b", 0), ("it's", "its", 1), ("yes ", "Yes! ", 1)]  # fmt: skip


@pytest.mark.parametrize(("reply", "target", "expected"), SPACES)
def test_exact_match_does_not_touch_spaces(reply, target, expected):
    """lmms-eval api/metrics.py exact_match_hf_evaluate: lower-case, then delete string.punctuation, then ==."""
    assert scorer("exact")(reply, target) == expected


PEOPLE = [["a"] * 10, ["the"] * 10, ["."] * 10, ["", "red"] * 5]


@pytest.mark.parametrize("name", ["vqa_evalai", "vqa_vqav2_lmms", "vqa_official", "exact"])
@pytest.mark.parametrize("people", PEOPLE)
@pytest.mark.parametrize("reply", ["", " ", "\n"])
def test_an_empty_reply_is_wrong_whatever_people_said(name, people, reply):
    metric = AnswerScore(1, scorer(name))
    metric.update(ONE, [reply], [people])
    assert metric.compute()["score"] == 0


def test_a_word_that_the_normaliser_makes_nothing_of_still_counts_where_people_said_it():
    metric = AnswerScore(1, scorer("vqa_evalai"))
    metric.update(ONE, ["The."], [["the"] * 10])
    assert metric.compute()["score"] == 1


NLL = torch.tensor([[3.0, 1.0, 2.0, torch.inf]])
LENGTHS = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
TEXTS = [["red", "green", "blue"]]


@pytest.mark.parametrize(
    ("target", "accuracy", "margin"),
    [
        (1, 1, 1.0),
        ([1, 2], 1, 2.0),
        ([0, 2], 0, -1.0),
        ([2], 0, -1.0),
        ("green", 1, 1.0),
        ("red", 0, -2.0),
        (["red", "green"], 1, 1.0),
        ([0, 1, 2], 1, 1e6),
    ],
)
def test_likelihood_with_several_right_options_and_with_texts(target, accuracy, margin):
    """lm-eval's multiple_choice: right if the likeliest is one of the gold ones; a text is looked up in the options."""
    metric = LikelihoodChoice(1)
    metric.update(ONE, NLL, LENGTHS, [target], TEXTS)
    found = metric.compute()
    assert found["accuracy"] == accuracy
    assert found["margin"] == pytest.approx(margin)


def test_questions_of_one_and_of_several_golds_share_a_batch():
    metric = LikelihoodChoice(2)
    metric.update(torch.tensor([1, 0]), NLL.repeat(2, 1), LENGTHS.repeat(2, 1), [1, [0, 2]])
    assert metric.values().tolist() == [0.0, 1.0]


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


def test_vanilla_is_the_unrotated_row_wherever_it_stands():
    circles, base = ["7", "7", "8", "8"], [False, True, True, False]
    metric = CircularAccuracy(circles, extractor("letter_dot"), ["x", "y", "z", "z"], base=base)
    options = [["a", "b"]] * 4
    metric.update(torch.arange(4), ["A", "B", "A", "B"], torch.tensor([0, 0, 0, 0]), options)
    found = metric.compute()
    assert found["vanilla"] == 0.5
    assert {name for name in found if name.startswith("circular/")} == {"circular/y", "circular/z"}
    plain = CircularAccuracy(circles, extractor("letter_dot"))
    plain.update(torch.arange(4), ["A", "B", "A", "B"], torch.tensor([0, 0, 0, 0]), options)
    assert plain.compute()["vanilla"] == 1


def test_a_reply_cut_off_is_wrong_and_not_unparsed():
    metric = ChoiceAccuracy(3, extractor("letter_dot"))
    metric.update(torch.tensor([0, 1]), ["A", "??"], torch.tensor([0, 0]), [["a", "b"]] * 2)
    metric.cut(torch.tensor([2]))
    found = metric.compute()
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["unparsed"] == pytest.approx(1 / 3)
    assert found["coverage"] == 1
