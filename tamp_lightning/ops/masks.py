"""Which weights stay, from their scores. True means keep; equal scores are decided by index, lowest first."""

import torch
from torch import Tensor


def row_mask(scores: Tensor, kept: int) -> Tensor:
    """Keep `kept` weights, shared equally by the output rows.

    With kept = q*o + r every row keeps its q best, and the r rows with the largest (q+1)-th score one more.

    Args:
        scores: [o, c], larger is better; dequantised weights give many ties, all decided by index.
        kept: number of weights to keep, from 0 to o*c.

    Returns:
        Bool [o, c] with exactly `kept` True.

    Raises:
        ValueError: kept is out of range, scores are not a matrix or hold NaN.
    """
    _check(scores, kept)
    rows, columns = scores.shape
    quota, extra = divmod(kept, rows)
    if quota == columns:
        return torch.ones_like(scores, dtype=torch.bool)
    # everything above the (q+1)-th best score stays; what the row may still keep ties with it
    bar = scores.kthvalue(columns - quota, dim=1).values
    quotas = torch.full((rows,), quota, device=scores.device)
    quotas[bar.sort(descending=True, stable=True).indices[:extra]] += 1
    mask = scores > bar[:, None]
    missing = quotas - mask.sum(1)
    open_rows = missing.nonzero().squeeze(1)
    ties = scores[open_rows] == bar[open_rows, None]
    ties &= ties.cumsum(1, dtype=torch.int32) <= missing[open_rows, None]
    mask[open_rows] |= ties
    return mask


def matrix_mask(scores: Tensor, kept: int) -> Tensor:
    """Keep the `kept` best weights of the whole matrix, wherever they stand.

    Args:
        scores: [o, c], larger is better.
        kept: number of weights to keep, from 0 to o*c.

    Returns:
        Bool [o, c] with exactly `kept` True.

    Raises:
        ValueError: kept is out of range, scores are not a matrix or hold NaN.
    """
    _check(scores, kept)
    return row_mask(scores.reshape(1, -1), kept).view(scores.shape)


def nm_mask(scores: Tensor, n: int, m: int) -> Tensor:
    """Keep the n best of every m consecutive inputs (n:m sparsity as NVIDIA and PyTorch count it).

    Args:
        scores: [o, c], larger is better.
        n: weights kept in each group, from 0 to m.
        m: group length along the inputs; has to divide c.

    Returns:
        Bool [o, c], n True in every group.

    Raises:
        ValueError: n is not in 0..m, m does not divide c, scores are not a matrix or hold NaN.
    """
    if not (0 <= n <= m and m >= 1):
        raise ValueError(f"pattern {n}:{m} is impossible; n of every m inputs are kept, 0 <= n <= m.")
    _check(scores, 0)
    if scores.shape[1] % m:
        raise ValueError(f"pattern {n}:{m} does not fit a width of {scores.shape[1]}; m has to divide it.")
    groups = scores.unflatten(1, (-1, m))
    rank = torch.zeros_like(groups, dtype=torch.int16)
    for j in range(m):
        rival = groups[..., j : j + 1]
        rank[..., : j + 1] += rival > groups[..., : j + 1]
        rank[..., j + 1 :] += rival >= groups[..., j + 1 :]
    return (rank < n).flatten(1)


def _check(scores: Tensor, kept: int) -> None:
    if scores.dim() != 2 or scores.numel() == 0:
        raise ValueError(f"scores have shape {list(scores.shape)}; expected [out, in], not empty.")
    if not 0 <= kept <= scores.numel():
        raise ValueError(f"kept is {kept}; a {list(scores.shape)} matrix keeps 0 to {scores.numel()}.")
    if bool(scores.isnan().any()):
        raise ValueError("scores hold NaN; check the weights and activations of this linear.")
