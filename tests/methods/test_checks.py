"""What constants of methods may be."""

from types import SimpleNamespace

import pytest

from tamp_lightning.methods.checks import check_above_zero, check_at_least, check_at_least_zero, check_share

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize("value", [-1, -1e-9, NAN, INFINITE])
def test_numbers_have_to_be_finite_and_at_least_zero(value):
    with pytest.raises(ValueError, match=rf"admm\.damp is {value}; it has to be a finite number, at least 0"):
        check_at_least_zero("admm", SimpleNamespace(damp=value), "damp")
    check_at_least_zero("admm", SimpleNamespace(damp=0), "damp")


@pytest.mark.parametrize("value", [-1, 0, NAN, INFINITE])
def test_or_above_zero(value):
    with pytest.raises(ValueError, match=rf"refit\.damp is {value}; it has to be above 0, such as 0\.01"):
        check_above_zero("refit", SimpleNamespace(damp=value), "damp", "0.01")
    check_above_zero("refit", SimpleNamespace(damp=1e-9), "damp", "0.01")


@pytest.mark.parametrize("value", [-0.1, 1.1, NAN])
def test_shares_lie_between_zero_and_one(value):
    with pytest.raises(ValueError, match=rf"sparsegpt\.share is {value}; it has to be from 0 to 1, such as 0\.2"):
        check_share("sparsegpt", value)
    for share in (0, 0.5, 1):
        check_share("sparsegpt", share)


@pytest.mark.parametrize("value", [0, -3, NAN])
def test_fields_may_have_a_least_value_unless_they_are_not_given(value):
    section = SimpleNamespace(first=1, second=None, third=value)
    with pytest.raises(ValueError, match=rf"^scores\.third is {value}; it has to be at least 1$"):
        check_at_least(1, "scores.", section, "first", "second", "third")
    check_at_least(1, "scores.", section, "first", "second")
