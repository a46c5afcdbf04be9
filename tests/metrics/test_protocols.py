"""Rules that the golden cases do not reach."""

import pytest
import torch

from tamp_lightning.metrics import (
    EXTRACTORS,
    SCORERS,
    AnswerScore,
    ChoiceAccuracy,
    CircularAccuracy,
    LikelihoodChoice,
    MMEScore,
    YesNo,
    extractor,
    scorer,
)

FOUR = ["cat", "dog", "cow", "owl"]


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_no_rule_guesses(name):
    assert extractor(name)("", FOUR) == -1
    assert extractor(name)("?!", FOUR) == -1


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_scorers_stay_in_range(name):
    target = ["red", "red", "blue"] if name.startswith("vqa") else "red"
    assert 0 <= scorer(name)("", target) <= scorer(name)("red", target) <= 1


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"'robust'.*got 'wise'"):
        extractor("wise")
    with pytest.raises(ValueError, match=r"'anls'.*got 'wise'"):
        scorer("wise")


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


def test_unparsed_replies_are_counted_whatever_they_are_scored_as():
    def result(**settings):
        metric = ChoiceAccuracy(4, extractor("vlmevalkit"), **settings)
        replies = ["A", "hm", "Cannot determine the answer", "B"]
        metric.update(torch.arange(4), replies, torch.tensor([0, 2, 1, 0]), [FOUR] * 4)
        return {name: value.item() for name, value in metric.compute().items()}

    assert result() == {"accuracy": 0.25, "unparsed": 0.5, "coverage": 1}
    assert result(fallback=2) == {"accuracy": 0.5, "unparsed": 0.5, "coverage": 1}
    assert result(unparsed="skip") == {"accuracy": 0.5, "unparsed": 0.5, "coverage": 1}


def test_groups_micro_and_macro():
    groups = {"task": ["a", "a", "b", None]}
    for average, expected in (("micro", 0.5), ("macro", 0.25)):
        metric = AnswerScore(4, scorer("exact"), groups, average)
        metric.update(torch.arange(4), ["x", "y", "y", "x"], ["x", "x", "x", "x"])
        result = {name: value.item() for name, value in metric.compute().items()}
        assert result == {"score": expected, "score/task/a": 0.5, "score/task/b": 0, "coverage": 1}


def test_yes_no_reports_what_it_could_not_read():
    replies, labels = ["Yes", "a dog", "no", "NO"], ["yes", "yes", "no", "no"]
    found = {}
    for protocol in ("official", "lmms"):
        metric = YesNo(4, protocol)
        metric.update(torch.arange(4), replies, labels)
        found[protocol] = {name: value.item() for name, value in metric.compute().items()}
    assert found["official"]["unparsed"] == 0.5
    assert found["official"]["pred_yes_ratio"] == 0.75
    assert found["official"]["accuracy"] == 0.75
    assert found["lmms"]["unparsed"] == 0.25
    assert found["lmms"]["recall"] == 1


def test_incomplete_pairs_and_circles_are_left_out():
    metric = MMEScore(["p", "p", "q", "q"], ["OCR"] * 4)
    metric.update(torch.arange(3), ["yes", "no", "yes"], ["Yes", "No", "No"])
    result = metric.compute()
    assert (result["perception"].item(), result["coverage"].item()) == (200, 0.75)
    circles = CircularAccuracy([1, 1, 2, 2], extractor("letter_dot"))
    circles.update(torch.arange(3), ["A", "B", "A"], torch.tensor([0, 1, 0]), [FOUR[:2]] * 3)
    result = circles.compute()
    assert (result["circular"].item(), result["complete"].item()) == (1, 0.5)
    assert circles.circle_values().nan_to_num(-1).tolist() == [1, -1]


def test_likelihood_normalisation_and_margin():
    nll, inf = torch.tensor([[4.0, 3.0, torch.inf], [2.0, 2.0, 9.0]]), torch.inf
    lengths, targets = torch.tensor([[4, 1, 0], [1, 1, 1]]), torch.tensor([0, 1])
    for normalize, accuracy, margins in (("token", 0.5, [2, 0]), ("sum", 0, [-1, 0]), ("char", 0.5, [2, 0])):
        metric = LikelihoodChoice(3, normalize)
        metric.update(torch.tensor([2, 0]), nll, lengths, targets)
        result = metric.compute()
        assert result["accuracy"].item() == accuracy
        assert result["margin"].item() == pytest.approx(sum(margins) / 2)
        assert metric.margins().nan_to_num(-9).tolist() == pytest.approx([margins[1], -9, margins[0]])
    with pytest.raises(ValueError, match="NaN"):
        metric.update(torch.tensor([0]), torch.tensor([[torch.nan, 1.0]]), lengths[:1, :2], targets[:1])
    with pytest.raises(ValueError, match="two options"):
        metric.update(torch.tensor([0]), torch.tensor([[1.0, inf]]), lengths[:1, :2], targets[:1])
    with pytest.raises(ValueError, match="targets in"):
        metric.update(torch.tensor([0]), torch.tensor([[1.0, 2.0]]), lengths[:1, :2], torch.tensor([2]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AnswerScore(2, scorer("exact"), groups=["a"]), "one group per sample"),
        (lambda: AnswerScore(2, scorer("exact"), average="macro"), "exactly one grouping"),
        (lambda: AnswerScore(2, scorer("exact"), empty="drop"), "'wrong' or 'skip'"),
        (lambda: ChoiceAccuracy(2, extractor("robust"), unparsed="drop"), "'wrong' or 'skip'"),
        (lambda: YesNo(2, protocol="mme"), "'official'"),
        (lambda: YesNo(1).update(torch.tensor([0]), ["yes"], ["maybe"]), "yes or no"),
        (lambda: YesNo(2).update(torch.tensor([0]), ["yes"], ["yes", "no"]), "one entry per sample"),
        (lambda: MMEScore(["p", "p", "p"], ["OCR"] * 3), "two rows for every pair"),
        (lambda: MMEScore(["p", "p"], ["ocr"] * 2), "got \\['ocr'\\]"),
        (lambda: CircularAccuracy([1, 1], extractor("robust"), ["a"]), "one group per sample"),
        (lambda: LikelihoodChoice(2, "words"), "'token', 'sum' or 'char'"),
        (
            lambda: LikelihoodChoice(1).update(
                torch.tensor([0]), torch.ones(1, 2), torch.ones(1, 2), [["c"]], [["a", "b"]]
            ),
            r"in the options \['a', 'b'\], but got \['c'\]",
        ),
        (
            lambda: LikelihoodChoice(1).update(torch.tensor([0]), torch.ones(1, 2), torch.ones(1, 2), [[0, 2]]),
            r"in \[0, 2\), but got \[0, 2\]",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
