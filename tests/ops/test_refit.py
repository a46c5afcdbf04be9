"""Refitting under a mask against the normal equations solved row by row."""

import pytest
import torch

from tamp_lightning.ops.hessian import damped
from tamp_lightning.ops.refit import refit


def case(rows: int = 5, columns: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Dense weights, a mask that keeps half of them, and the second moments of correlated inputs."""
    make = torch.Generator().manual_seed(seed)
    inputs = torch.randn(200, columns, generator=make) @ torch.randn(columns, columns, generator=make)
    dense = torch.randn(rows, columns, generator=make)
    return dense, torch.rand(rows, columns, generator=make) < 0.5, inputs.T @ inputs


def exact(dense: torch.Tensor, mask: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """H_SS w_S = (H w0)_S for the kept columns S of each row, in float64."""
    gram, found = gram.double(), torch.zeros_like(dense, dtype=torch.float64)
    for row, (weight, keep) in enumerate(zip(dense.double(), mask, strict=True)):
        found[row, keep] = torch.linalg.solve(gram[keep][:, keep], (gram @ weight)[keep])
    return found


def error(dense: torch.Tensor, weight: torch.Tensor, gram: torch.Tensor) -> float:
    gone = (dense - weight).double()
    return float((gone @ gram.double() * gone).sum())


def test_many_steps_solve_the_normal_equations() -> None:
    dense, mask, hessian = case()
    found = refit(dense, dense * mask, mask, hessian, steps=40, damp=0.01)
    assert not found[~mask].any()
    torch.testing.assert_close(found.double(), exact(dense, mask, damped(hessian, 0.01)), rtol=1e-3, atol=1e-4)


def test_each_step_lowers_the_error_and_ten_are_nearly_the_optimum() -> None:
    dense, mask, hessian = case(rows=16, columns=48)
    gram = damped(hessian, 0.01)
    errors = [error(dense, refit(dense, dense * mask, mask, hessian, steps=n), gram) for n in (0, 1, 2, 5, 10)]
    assert errors == sorted(errors, reverse=True)
    best = error(dense, exact(dense, mask, gram), gram)
    assert best <= errors[-1] < best + 0.1 * (errors[0] - best)


def test_what_has_nothing_to_gain_stays_to_the_bit() -> None:
    dense, mask, hessian = case()
    mask[0] = True  # a whole row is its own optimum
    mask[1] = False
    pruned = dense * mask
    assert torch.equal(refit(dense, pruned, mask, hessian, steps=0), pruned)
    found = refit(dense, pruned, mask, hessian, steps=10)
    assert torch.equal(found[:2], pruned[:2])
    assert found.isfinite().all()


def test_a_column_that_was_never_active_keeps_its_weights_and_a_factor_changes_nothing() -> None:
    dense, mask, hessian = case()
    hessian[3] = hessian[:, 3] = 0
    mask[:, 3] = True
    found = refit(dense, dense * mask, mask, hessian)
    torch.testing.assert_close(found[:, 3], dense[:, 3])
    torch.testing.assert_close(refit(dense, dense * mask, mask, 64 * hessian), found)


def test_bfloat16_comes_back_as_bfloat16() -> None:
    dense, mask, hessian = case()
    found = refit(dense.bfloat16(), (dense * mask).bfloat16(), mask, hessian)
    assert found.dtype == torch.bfloat16


def test_impossible() -> None:
    dense, mask, hessian = case()
    with pytest.raises(ValueError, match="steps is -1"):
        refit(dense, dense * mask, mask, hessian, steps=-1)
    with pytest.raises(ValueError, match="11"):
        refit(dense, dense * mask, mask, hessian[:11, :11])
