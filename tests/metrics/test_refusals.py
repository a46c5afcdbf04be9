"""Metrics refuse what they cannot score."""

import pytest
import torch

from tamp_lightning.metrics import (
    AnswerScore,
    ChoiceAccuracy,
    CircularAccuracy,
    LikelihoodChoice,
    MMEScore,
    YesNo,
    extractor,
    scorer,
)


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
