"""Pruning that also moves the weights it keeps, by the optimal brain surgeon's rule (SparseGPT)."""

from collections.abc import Callable

import torch
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.ops.hessian import check_hessian, damped
from tamp_lightning.ops.masks import check_choice, matrix_mask, nm_mask, quota_mask, row_mask
from tamp_lightning.ops.rounding import GROUP, Grid

NEAR = 32
"""Columns that are updated after every column; the others of a block wait until all of these are done."""


@torch.no_grad()
def sparsegpt(
    weight: Tensor,
    hessian: Tensor,
    *,
    sparsity: float | None = None,
    kept: int | None = None,
    pattern: tuple[int, int] | None = None,
    mask: Tensor | None = None,
    by_row: bool = True,
    block: int = 128,
    damp: float = 0.01,
    bits: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Prune column by column, letting later columns make up for each loss (SparseGPT, arXiv 2301.00774).

    Exactly one of sparsity, kept, pattern and mask says what to prune. With `bits`, what stays is rounded in the same
    sweep, and later columns make up for that too (GPTQ, arXiv 2210.17323, under the mask).

    Args:
        weight: [o, c], any floating dtype; computed in float32. Not changed.
        hessian: [c, c], sum over tokens of w_t x x^T; a constant factor changes nothing.
        sparsity: fraction to remove, chosen within each block of columns over all rows at once. As in the
            reference code, a block of N weights loses int(N * sparsity) + 1 (none at sparsity 0).
        kept: keep exactly this many weights of the matrix, an equal part of each block of columns.
        pattern: (n, m), keep n of every m consecutive inputs, chosen with the weights as updated so far.
        mask: bool [o, c], True = keep, when another rule already chose.
        by_row: with kept, all rows keep equal numbers to within one, like `ops.masks.row_mask`; False compares
            all rows of a block at once, like the reference.
        block: columns between two updates of the rest of the matrix.
        damp: share of the mean diagonal that is added to the diagonal.
        bits: 8 or 4: weights become whole numbers of so many bits times a scale per row and 128 columns, which is
            that of the largest weight when the sweep comes to them; then in the dtype of `weight`. None: not rounded.

    Returns:
        New weight like `weight`, zero outside the mask, and the bool mask [o, c]. Weights on inputs that were
        never active go first and, unlike in the reference, stay as they are (but for `bits`) if the mask keeps them.

    Raises:
        ValueError: not exactly one of the four is given, it is out of range or does not fit, the Hessian
            is not positive definite even after damping, or a block is not made of whole groups of 128 columns.
    """
    check_choice("sparsegpt", weight.shape, sparsity=sparsity, kept=kept, pattern=pattern, mask=mask)
    if sparsity is not None and not 0 <= sparsity < 1:
        raise InputError(f"sparsity is {sparsity}; it has to be at least 0 and below 1.")
    check_hessian(weight, hessian)
    dead = hessian.diagonal() == 0
    work = weight.to(torch.float32, copy=True)
    work[:, dead] = 0
    factor = _inverse_factor(hessian, damp)
    choose = None if pattern or mask is not None else _chooser(work, factor, sparsity, kept, by_row)
    keep = torch.ones_like(work, dtype=torch.bool) if mask is None else mask.clone()
    step = block if pattern is None else max(block // pattern[1], 1) * pattern[1]
    grid = None if bits is None else Grid(bits, weight, dead, step)
    for start in range(0, work.shape[1], step):
        columns = slice(start, min(start + step, work.shape[1]))
        part, own = work[:, columns], factor[columns, columns]
        if choose is not None:
            keep[:, columns] = choose(_losses(part, own), columns)
        errors = _sweep(part, own, keep[:, columns], pattern, grid)
        work[:, columns.stop :] -= errors @ factor[columns, columns.stop :]
    # no token says anything about these: keeping means leaving alone
    alone = weight[:, dead].float() if grid is None else grid.dead_weights()
    work[:, dead] = alone * keep[:, dead]
    return work.to(weight.dtype), keep


def _losses(part: Tensor, factor: Tensor) -> Tensor:
    """Loss of pruning each weight of a block of columns, given its part of the inverse factor."""
    return part.square() / factor.diagonal().square()


def _chooser(
    weight: Tensor, factor: Tensor, sparsity: float | None, kept: int | None, by_row: bool
) -> Callable[[Tensor, slice], Tensor]:
    """What a block of columns keeps, from its scores.

    Counts are differences of a running total, so that the blocks' rounding adds up to the exact number.
    """
    width = weight.shape[1]
    if kept is None:
        share = sparsity or 0.0
        return lambda scores, _: matrix_mask(scores, scores.numel() - int(scores.numel() * share) - (share > 0))
    if not by_row:
        return lambda scores, at: matrix_mask(scores, kept * at.stop // width - kept * at.start // width)
    quotas = row_mask(_losses(weight, factor), kept).sum(1)
    return lambda scores, at: quota_mask(scores, quotas * at.stop // width - quotas * at.start // width)


def _sweep(part: Tensor, factor: Tensor, keep: Tensor, pattern: tuple[int, int] | None, grid: Grid | None) -> Tensor:
    """Prune one block's columns in place, round them to a grid, and return each column's scaled error [o, block].

    Columns stand in rows meanwhile, where they are contiguous, and only those nearby are updated one by one.
    """
    rows, scale, width = part.T.contiguous(), factor.diagonal().reciprocal(), part.shape[1]
    lost = (~keep).T * scale[:, None]
    errors = torch.empty_like(rows)
    step = NEAR if pattern is None else max(NEAR // pattern[1], 1) * pattern[1]
    for start in range(0, width, step):
        stop = min(start + step, width)
        for j in range(start, stop):
            if pattern is not None and j % pattern[1] == 0:
                group = slice(j, j + pattern[1])
                keep[:, group] = nm_mask(_losses(rows[group].T, factor[group, group]), *pattern)
                lost[group] = (~keep[:, group]).T * scale[group, None]
            if grid is None:
                torch.mul(rows[j], lost[j], out=errors[j])
            else:
                if j % GROUP == 0:
                    grid.next_group(rows[j : j + GROUP], keep[:, j : j + GROUP].T)
                near = grid.nearest(rows[j]) * keep[:, j]
                torch.mul(rows[j] - near, scale[j], out=errors[j])
                rows[j] = near
            rows[j + 1 : stop].addr_(factor[j, j + 1 : stop], errors[j], alpha=-1)
        rows[stop:].addmm_(factor[start:stop, stop:].T, errors[start:stop], alpha=-1)
    part.copy_(rows.T).mul_(keep)
    return errors.T


def _inverse_factor(hessian: Tensor, damp: float) -> Tensor:
    """Upper Cholesky factor of the damped Hessian's inverse, float32 [c, c].

    With R upper and H = R R^T, which is the Cholesky factor of H read backwards, it is R^-1: H itself is not inverted.
    """
    lower, failed = torch.linalg.cholesky_ex(damped(hessian, damp).float().flip(0, 1))
    if failed:
        raise InputError(f"the Hessian is not positive definite with damp {damp}; raise damp or use more tokens.")
    identity = torch.eye(len(lower), device=lower.device)
    return torch.linalg.solve_triangular(lower.flip(0, 1), identity, upper=True)
