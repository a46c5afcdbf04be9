"""Least squares of the weights that stay, under a mask that stays: conjugate gradients."""

import torch
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.ops.hessian import check_hessian, damped


@torch.no_grad()
def refit(
    dense: Tensor, pruned: Tensor, mask: Tensor, hessian: Tensor, *, steps: int = 10, damp: float = 0.01
) -> Tensor:
    """Weights under a mask whose outputs are nearest to the dense ones: min over W of tr (W0 - W) H (W0 - W)^T.

    Every row is a least-squares problem of its own, with the columns that it keeps; all rows take a step of conjugate
    gradients at once, preconditioned by H's diagonal, at the cost of one product [o, c] x [c, c]. As many steps as a
    row keeps columns give the exact optimum, about ten nearly all of it.

    Args:
        dense: W0 [o, c], any floating dtype; computed in float32.
        pruned: where to start [o, c], zero outside the mask.
        mask: bool [o, c], True = keep.
        hessian: H [c, c], sum over tokens of w x x^T; a constant factor changes nothing.
        steps: at least 0; 0 returns what was given.
        damp: share of the mean diagonal added to the diagonal, which pulls towards the dense weights.

    Returns:
        New weight like `pruned`, zero outside the mask; its error is never larger than that of `pruned`, but for
        rounding.

    Raises:
        ValueError: steps is negative, or the Hessian does not fit or is not finite.
    """
    if steps < 0:
        raise InputError(f"steps is {steps}; it has to be at least 0.")
    check_hessian(dense, hessian)
    gram = damped(hessian, damp).float()
    scale = gram.diagonal().reciprocal()
    weight = pruned.float()
    residual = ((dense.float() - weight) @ gram).mul_(mask)
    ahead = residual * scale
    energy = (residual * ahead).sum(1, keepdim=True)
    for _ in range(steps):
        curved = (ahead @ gram).mul_(mask)
        bend = (ahead * curved).sum(1, keepdim=True)
        length = torch.where(bend > 0, energy / bend, 0.0)  # a row that has arrived stands still
        weight = weight + length * ahead
        residual.sub_(length * curved)
        scaled = residual * scale
        before, energy = energy, (residual * scaled).sum(1, keepdim=True)
        ahead = scaled + torch.where(before > 0, energy / before, 0.0) * ahead
    return weight.to(pruned.dtype)
