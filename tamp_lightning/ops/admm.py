"""Pruning that moves the weights it keeps, by alternating directions (ADMM-Grad, arXiv 2401.02938)."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.ops.hessian import check_hessian, damped
from tamp_lightning.ops.masks import check_choice, matrix_mask, nm_mask, row_mask


@torch.no_grad()
def admm(
    weight: Tensor,
    hessian: Tensor,
    *,
    kept: int | None = None,
    pattern: tuple[int, int] | None = None,
    mask: Tensor | None = None,
    by_row: bool = True,
    iterations: int = 20,
    mask_iterations: int = 15,
    schedule: Literal["cubic", "constant"] = "cubic",
    rho: float = 1.0,
    damp: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Least-squares weights under a sparsity limit, alternately solved and masked (arXiv 2401.02938).

    Inputs are first scaled to norm one, so that |W| is Wanda's score. Every iteration masks Z = (W + U) * M,
    adds the rest to U and solves W = (W0 H + rho (Z - U)) (H + rho I)^-1: one factorisation for all of them.
    Exactly one of kept, pattern and mask says what to prune.

    Args:
        weight: [o, c], any floating dtype; computed in float32. Not changed.
        hessian: [c, c], sum over tokens of w_t x x^T; a constant factor changes nothing.
        kept: keep exactly this many weights.
        pattern: (n, m), keep n of every m consecutive inputs.
        mask: bool [o, c], True = keep, when another rule already chose; only the weights are solved for.
        by_row: with kept, all rows keep equal numbers to within one (`ops.masks.row_mask`); False compares the
            whole matrix. With pattern it says how the cubic schedule compares weights on its way.
        iterations: how often weights are solved for; 0 prunes by Wanda's score and moves nothing.
        mask_iterations: the mask is chosen anew in this many first iterations, T; 0 fixes Wanda's mask.
        schedule: "cubic" removes 1 - (1 - t / T)^3 of what has to go in iteration t = 1..T, as in the paper;
            "constant" everything from the start, as the released code does for unstructured pruning.
        rho: pull of the weights towards their masked values, above 0.
        damp: share of the mean diagonal that is added to the diagonal, after scaling.

    Returns:
        New weight like `weight`, zero outside the mask, and the bool mask [o, c]. Rows that lose nothing do not
        change. Weights on inputs that were never active go first, and stay as they are if the mask keeps them.

    Raises:
        ValueError: not exactly one of the three is given, it is out of range or does not fit, another argument
            is out of range, or the Hessian is not positive definite even after damping.
    """
    check_choice("admm", weight.shape, kept=kept, pattern=pattern, mask=mask)
    check_hessian(weight, hessian)
    choose = _chooser(weight, kept, pattern, by_row, _power(schedule))
    norm = hessian.diagonal().clamp(min=0).sqrt().float()
    dead = norm == 0
    norm = norm.masked_fill(dead, 1)
    start = (weight.float() * norm).masked_fill_(dead, 0)
    gram = damped((hessian / norm).div_(norm[:, None]), damp).float()
    keep = choose(start.abs(), 1.0) if mask is None else mask.clone()
    limit = min(mask_iterations, iterations)
    pull, inverse = start @ gram, _inverse(gram, rho)
    moved = start
    for step in range(iterations):
        if mask is None and step < limit:
            keep = choose(moved.abs(), (step + 1) / limit)
        split = moved * keep
        # moved is W + U, and the new U what the mask takes from it, so that Z - U = 2 Z - moved
        moved = (pull + rho * (2 * split - moved)) @ inverse + (moved - split)
    result = (moved * keep).div_(norm)
    result = torch.where(keep.all(1, keepdim=True) | (dead & keep), weight.float(), result)
    return result.to(weight.dtype), keep


def _power(schedule: str) -> int:
    powers = {"cubic": 3, "constant": 0}
    if schedule not in powers:
        raise ValueError(f"schedule is {schedule!r}; it has to be one of {', '.join(powers)}.")
    return powers[schedule]


def _inverse(gram: Tensor, rho: float) -> Tensor:
    """(gram + rho I)^-1."""
    if not rho > 0:
        raise InputError(f"rho is {rho}; it has to be above 0, such as 1.0.")
    shifted = gram.clone()
    shifted.diagonal().add_(rho)
    lower, failed = torch.linalg.cholesky_ex(shifted)
    if failed:
        raise InputError("the Hessian is not positive definite; raise damp or use more tokens.")
    return torch.cholesky_inverse(lower)


def _chooser(
    weight: Tensor, kept: int | None, pattern: tuple[int, int] | None, by_row: bool, power: int
) -> Callable[[Tensor, float], Tensor]:
    """Mask by score when a share (0 to 1] of the iterations that choose is done."""
    size = weight.numel()
    count = size // pattern[1] * pattern[0] if pattern else kept or 0
    best = row_mask if by_row else matrix_mask

    def choose(scores: Tensor, progress: float) -> Tensor:
        if pattern is not None:
            # those that the pattern keeps come first, the rest is on its way out
            scores = scores.masked_fill(nm_mask(scores, *pattern), torch.inf)
        waiting = (1 - progress) ** power if power else 0.0
        return best(scores, count + int((size - count) * waiting))

    return choose
