"""CircularEval, and pairs of MME."""

import torch

from tamp_lightning.metrics import CircularAccuracy, MMEScore, extractor

FOUR = ["cat", "dog", "cow", "owl"]


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
