"""Weights that make up for what pruning the blocks before did to a linear's inputs."""

import torch
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.ops.hessian import check_hessian, damped


@torch.no_grad()
def corrected_target(
    weight: Tensor, cross: Tensor, hessian: Tensor, *, tau: float = 1.0, damp: float = 0.01, anchored: bool = True
) -> Tensor:
    """Weights that give the dense outputs from the pruned model's inputs; prune these instead of W.

    With X_d the dense and X_p the pruned model's inputs of the same tokens, V* minimises
    |X_d W^T - X_p V^T|^2 + delta |V - W|^2, so V* = W + W (C - H) (H + delta I)^-1 with C = X_d^T X_p and
    H = X_p^T X_p. The result is W + tau (V* - W).

    Args:
        weight: dense W [o, c], any floating dtype; computed in float64. Not changed.
        cross: C [c, c], sum over tokens of w_t x_d x_p^T (`ops.hessian.weighted_cross`).
        hessian: H [c, c], sum over the same tokens of w_t x_p x_p^T (`ops.hessian.weighted_gram`).
        tau: how far to go, 0 (W itself) to 1; smaller values guard against overfitting few tokens.
        damp: delta as a share of H's mean diagonal, at least 0.
        anchored: False has delta |V|^2 instead, so V* = W C (H + delta I)^-1, which shrinks W even where the
            inputs did not change.

    Returns:
        [o, c] in the weight's dtype. Anchored, equal inputs and inputs that were never active give W back.

    Raises:
        ValueError: shapes or ranges do not fit, a value is NaN or infinite, or H cannot be inverted.
    """
    check_hessian(weight, hessian)
    check_hessian(weight, cross)
    if not 0 <= tau <= 1:
        raise InputError(f"tau is {tau}; it has to be from 0 to 1.")
    lower, failed = torch.linalg.cholesky_ex(damped(hessian.double(), damp))
    if failed:
        raise InputError(f"the Hessian is not positive definite with damp {damp}; raise damp or use more tokens.")
    dense = weight.double()
    if anchored:
        change = torch.cholesky_solve((dense @ (cross - hessian).double()).T, lower).T
    else:
        change = torch.cholesky_solve((dense @ cross.double()).T, lower).T - dense
    return change.mul_(tau).add_(dense).to(weight.dtype)


@torch.no_grad()
def layer_error(
    weight: Tensor, target: Tensor, hessian: Tensor, cross: Tensor | None = None, dense: Tensor | None = None
) -> float:
    """Squared error of a linear's outputs, summed over outputs and weighted tokens.

    Without cross: |X (V - W)^T|^2 = trace((V - W) H (V - W)^T), both on the same inputs. With cross the target
    runs on the dense inputs: |X_p V^T - X_d W^T|^2 = trace(V H V^T) - 2 trace(W C V^T) + trace(W H_d W^T).

    Args:
        weight: V [o, c], such as the pruned weight.
        target: W [o, c], such as the dense weight.
        hessian: H [c, c], sum over tokens of w_t x x^T of the inputs V sees.
        cross: C [c, c], sum over the same tokens of w_t x_d x_p^T.
        dense: H_d [c, c], the sum of w_t x_d x_d^T. Left out, the last term is too: still right for
            comparing weights, but it may be negative.

    Returns:
        The error, computed in float64.

    Raises:
        ValueError: shapes do not fit, a value is NaN or infinite, or dense is given without cross.
    """
    if weight.shape != target.shape:
        raise ValueError(f"target has shape {list(target.shape)}; expected {list(weight.shape)}.")
    for moments in (hessian, cross, dense):
        if moments is not None:
            check_hessian(weight, moments)
    if cross is None:
        if dense is not None:
            raise ValueError("dense is of use only with cross; give both or neither.")
        return _energy(weight.double() - target.double(), hessian, None)
    error = _energy(weight.double(), hessian, None) - 2 * _energy(target.double(), cross, weight.double())
    return error if dense is None else error + _energy(target.double(), dense, None)


def _energy(left: Tensor, moments: Tensor, right: Tensor | None) -> float:
    """trace(left moments right^T); right defaults to left."""
    return float(((left @ moments.double()) * (left if right is None else right)).sum())
