"""Typed sections from mappings."""

import pytest

from tamp_lightning.config.build import build
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.solvers import SparseGpt


def test_sections_may_be_mappings_or_objects():
    built = build(Method, {"sparsity": 0.6, "amia": {"neighbors": 5}, "sparsegpt": SparseGpt(block=64)}, "method")
    assert built == Method(sparsity=0.6, amia=type(Method().amia)(neighbors=5), sparsegpt=SparseGpt(block=64))
    assert build(Method, {}, "method") == Method()


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"sparsty": 0.5}, r"method: unknown key sparsty \(did you mean 'sparsity'\?\)"),
        ({"sparsity": "half"}, "method: sparsity is 'half', expected a number"),
        ({"amia": {"neighbors": 2.5}}, r"method: amia\.neighbors is 2\.5, expected a whole number"),
        ({"amia": SparseGpt()}, "method: amia is SparseGpt.*, expected a section with neighbors"),
        ({"sparsity": 1.0}, "sparsity is 1.0"),
    ],
)
def test_what_a_recipe_would_not_take_is_refused(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        build(Method, values, "method")
