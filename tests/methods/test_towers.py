"""How towers and projector are pruned."""

import pytest

from tamp_lightning.methods.method import Method
from tamp_lightning.methods.options import Correction, Reconstruct
from tamp_lightning.methods.towers import Towers


def test_they_take_the_decoders_solver_and_pattern_and_nothing_else_of_it():
    decoder = Method(
        solver="sparsegpt",
        pattern="2:4",
        sparsity=0.5,
        allocation="uniform",
        correction=Correction(tau=0.5),
        reconstruct=Reconstruct(steps=3),
    )
    own = Towers(sparsity=0.5).method(decoder)
    assert (own.solver, own.pattern, own.sparsity) == ("sparsegpt", "2:4", 0.5)
    assert (own.tokens, own.allocation, own.correction.on, own.reconstruct.on) == ("all", "uniform", False, False)


def test_a_sparsity_that_the_pattern_does_not_allow_is_named_as_theirs():
    with pytest.raises(ValueError, match=r"^towers\."):
        Towers(sparsity=0.3).method(Method(pattern="2:4", sparsity=0.5, allocation="uniform"))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"sparsity": 1.0}, "towers.sparsity is 1.0"),
        ({"sparsity": -0.1}, "towers.sparsity is -0.1"),
        ({"include": ["fc1"]}, "towers.include is given, but towers.sparsity is 0"),
        ({"exclude": ["fc1"]}, "towers.exclude is given, but towers.sparsity is 0"),
    ],
)
def test_impossible_sections_are_refused(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        Towers(**values)
