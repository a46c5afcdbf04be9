import pytest
import torch

from tamp_lightning.methods.patterns import Matrix, NofM, Row, parse_pattern
from tamp_lightning.ops.masks import matrix_mask, nm_mask, row_mask

SCORES = torch.rand(6, 24, generator=torch.Generator().manual_seed(0))


def test_names():
    assert [parse_pattern(name) for name in ("row", "matrix", "2:4", "4:8", "1:3")] == [
        Row(), Matrix(), NofM(2, 4), NofM(4, 8), NofM(1, 3),
    ]  # fmt: skip
    for wrong in ("rows", "2:4:8", "2 : 4", "-2:4", "124", ""):
        with pytest.raises(ValueError, match="it has to be one of row, matrix, or n:m in quotes"):
            parse_pattern(wrong)
    for wrong in ("4:4", "0:4", "5:4", "0:0"):
        with pytest.raises(ValueError, match=f"pattern is '{wrong}'; n:m keeps n of every m"):
            parse_pattern(wrong)


def test_masks_are_those_of_the_ops():
    assert torch.equal(Row().mask(SCORES, 50), row_mask(SCORES, 50))
    assert torch.equal(Matrix().mask(SCORES, 50), matrix_mask(SCORES, 50))
    assert torch.equal(NofM(1, 4).mask(SCORES, 36), nm_mask(SCORES, 1, 4))
    with pytest.raises(ValueError, match="pattern '1:4' keeps 36 of 144 weights, not 37"):
        NofM(1, 4).mask(SCORES, 37)
    assert Row().choice(5) == {"kept": 5, "by_row": True}
    assert Matrix().choice(5) == {"kept": 5, "by_row": False}
    assert NofM(2, 4).choice(5) == {"pattern": (2, 4)}


def test_a_pattern_checks_sparsity_and_widths():
    shapes = {"a": (6, 24), "b": (6, 30)}
    for pattern in (Row(), Matrix()):
        pattern.check(0.123, shapes)
    NofM(2, 6).check(1 - 1 / 3, shapes)
    NofM(3, 5).check(0.4, {})
    with pytest.raises(ValueError, match=r"pattern '2:4' does not fit b: 4 does not divide its width, 30"):
        NofM(2, 4).check(0.5, shapes)
    with pytest.raises(ValueError, match=r"sparsity is 0.5; pattern '1:4' removes 0.75 of the weights"):
        NofM(1, 4).check(0.5, {})
