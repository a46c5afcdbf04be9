"""Steps that any method can add are off by default, and say what they allow."""

import pytest

from tamp_lightning.methods.options import Correction, Experts, Reconstruct, Refit


def test_nothing_is_on_by_default():
    assert not any(section().on for section in (Correction, Refit, Reconstruct))
    assert all(section.on for section in (Correction(tau=0.1), Refit(steps=1), Reconstruct(steps=1)))


@pytest.mark.parametrize(
    ("section", "values", "complaint"),
    [
        (Correction, {"tau": 1.1}, r"correction\.tau is 1\.1; it has to be from 0 \(off\) to 1"),
        (Correction, {"damp": 0.0}, r"correction\.damp is 0\.0; it has to be above 0, such as 0\.01"),
        (Refit, {"steps": -1}, r"refit\.steps is -1; it has to be at least 0 \(off\), such as 10"),
        (Refit, {"share": 2.0}, r"refit\.share is 2\.0; it has to be from 0 to 1, such as 1\.0"),
        (Reconstruct, {"steps": -1}, r"reconstruct\.steps is -1; it has to be at least 0 \(off\)"),
        (Reconstruct, {"lr": 0.0}, r"reconstruct\.lr is 0\.0; it has to be above 0, such as 1e-4"),
        (Experts, {"shrink": -1.0}, r"experts\.shrink is -1\.0; it has to be a finite number, at least 0"),
    ],
)
def test_impossible_values_are_refused(section, values, complaint):
    with pytest.raises(ValueError, match=complaint):
        section(**values)
