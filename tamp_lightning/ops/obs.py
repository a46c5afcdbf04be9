"""Pruning that also moves the weights it keeps, by the optimal brain surgeon's rule (SparseGPT)."""

import torch
from torch import Tensor

from tamp_lightning.ops.masks import matrix_mask, nm_mask


@torch.no_grad()
def sparsegpt(
    weight: Tensor,
    hessian: Tensor,
    *,
    sparsity: float | None = None,
    kept: int | None = None,
    pattern: tuple[int, int] | None = None,
    mask: Tensor | None = None,
    block: int = 128,
    damp: float = 0.01,
) -> tuple[Tensor, Tensor]:
    """Prune column by column, letting later columns make up for each loss (SparseGPT, arXiv 2301.00774).

    Exactly one of sparsity, kept, pattern and mask says what to prune.

    Args:
        weight: [o, c], any floating dtype; computed in float32. Not changed.
        hessian: [c, c], sum over tokens of w_t x x^T; a constant factor changes nothing.
        sparsity: fraction to remove, chosen within each block of columns over all rows at once. As in the
            reference code, a block of N weights loses int(N * sparsity) + 1 (none at sparsity 0).
        kept: the same, but with exactly this many weights kept in the whole matrix.
        pattern: (n, m), keep n of every m consecutive inputs, chosen with the weights as updated so far.
        mask: bool [o, c], True = keep, when another rule already chose.
        block: columns between two updates of the rest of the matrix.
        damp: share of the mean diagonal that is added to the diagonal.

    Returns:
        New weight like `weight`, zero outside the mask, and the bool mask [o, c]. Inputs that
        were never active get zero weights.

    Raises:
        ValueError: not exactly one of the four is given, it is out of range or does not fit, or the Hessian
            is not positive definite even after damping.
    """
    _check_choice(weight, sparsity, kept, pattern, mask)
    _check_hessian(weight, hessian)
    work = weight.to(torch.float32, copy=True)
    work[:, hessian.diagonal() == 0] = 0
    factor = _inverse_factor(hessian, damp)
    width = work.shape[1]
    keep = torch.ones_like(work, dtype=torch.bool) if mask is None else mask.clone()
    step = block if pattern is None else max(block // pattern[1], 1) * pattern[1]
    for start in range(0, width, step):
        columns = slice(start, min(start + step, width))
        part, own = work[:, columns], factor[columns, columns]
        if pattern is None and mask is None:
            count = _block_count(work, columns, sparsity, kept)
            keep[:, columns] = matrix_mask(part.square() / own.diagonal().square(), count)
        errors = _sweep(part, own, keep[:, columns], pattern)
        work[:, columns.stop :] -= errors @ factor[columns, columns.stop :]
    return work.to(weight.dtype), keep


def _sweep(part: Tensor, factor: Tensor, keep: Tensor, pattern: tuple[int, int] | None) -> Tensor:
    """Prune one block's columns in place, and return each column's scaled error [o, block]."""
    errors = torch.zeros_like(part)
    for j in range(part.shape[1]):
        if pattern is not None and j % pattern[1] == 0:
            group = slice(j, j + pattern[1])
            keep[:, group] = nm_mask(part[:, group].square() / factor.diagonal()[group].square(), *pattern)
        pruned = part[:, j] * keep[:, j]
        errors[:, j] = (part[:, j] - pruned) / factor[j, j]
        part[:, j + 1 :] -= errors[:, j : j + 1] * factor[j, j + 1 :]
        part[:, j] = pruned
    return errors


def _inverse_factor(hessian: Tensor, damp: float) -> Tensor:
    """Upper Cholesky factor of the damped Hessian's inverse, float32 [c, c]."""
    damped = hessian.to(torch.float32, copy=True)
    diagonal = damped.diagonal()
    diagonal.masked_fill_(diagonal == 0, 1)
    diagonal.add_(damp * diagonal.mean())
    lower, failed = torch.linalg.cholesky_ex(damped)
    if not failed:
        upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    if failed:
        raise ValueError(f"the Hessian is not positive definite with damp {damp}; raise damp or use more tokens.")
    return upper


def _block_count(weight: Tensor, columns: slice, sparsity: float | None, kept: int | None) -> int:
    """Weights that a block of columns keeps."""
    rows, width = weight.shape
    if kept is None:
        size = rows * (columns.stop - columns.start)
        return size - int(size * sparsity) - 1 if sparsity else size
    # differences of a running total, so that the blocks' rounding adds up to the exact count
    return kept * columns.stop // width - kept * columns.start // width


def _check_choice(
    weight: Tensor,
    sparsity: float | None,
    kept: int | None,
    pattern: tuple[int, int] | None,
    mask: Tensor | None,
) -> None:
    choices = {"sparsity": sparsity, "kept": kept, "pattern": pattern, "mask": mask}
    given = [name for name, value in choices.items() if value is not None]
    if len(given) != 1:
        raise ValueError(f"sparsegpt got {given or 'nothing'}; give exactly one of {', '.join(choices)}.")
    if sparsity is not None and not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}; it has to be at least 0 and below 1.")
    if kept is not None and not 0 <= kept <= weight.numel():
        raise ValueError(f"kept is {kept}; a {list(weight.shape)} matrix keeps 0 to {weight.numel()}.")
    n, m = pattern or (1, 1)
    if not 0 <= n <= m or m < 1 or weight.shape[1] % m:
        raise ValueError(f"pattern {n}:{m} does not fit a width of {weight.shape[1]}; m has to divide it.")
    if mask is not None and mask.shape != weight.shape:
        raise ValueError(f"mask has shape {list(mask.shape)}; expected {list(weight.shape)}.")


def _check_hessian(weight: Tensor, hessian: Tensor) -> None:
    expected = [weight.shape[1]] * 2
    if list(hessian.shape) != expected:
        raise ValueError(f"hessian has shape {list(hessian.shape)}; expected {expected}.")
    if not bool(weight.isfinite().all() and hessian.isfinite().all()):
        raise ValueError("the weight or the Hessian holds NaN or infinity; check the calibration activations.")
