"""Second moments of a linear's inputs, sum over tokens of w x x^T, for solvers that move weights."""

import torch
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.ops.gram import products
from tamp_lightning.ops.mix import mix_statistics


@torch.no_grad()
def weighted_gram(inputs: Tensor, weights: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Sum over samples and tokens of w_t x_t x_t^T.

    Tokens of weight 0 are left out before the product: they cost nothing, and how much padding stands around
    the others changes no bit of the result.

    Args:
        inputs: [B, n, c], any floating dtype; values at weight 0 are never read, so padding may hold NaN.
        weights: [B, n], bool or float >= 0, 0 on padding.
        dtype: of the products and the sum: float32, or float64 for sums over very many tokens.

    Returns:
        [c, c] in dtype, symmetric to within rounding. Tokens are mapped to sqrt(w) x, so bool and 1.0 agree; where all
        weights are 0 or 1, bfloat16 inputs are multiplied as they are, which rounds nothing, with float32 sums.

    Raises:
        ValueError: the shapes do not agree, or a weight is negative, NaN or infinite.
    """
    tokens, kept = _tokens(inputs, weights)
    scaled = _scaled(tokens, kept, dtype)
    return _product(scaled, scaled, dtype)


@torch.no_grad()
def weighted_cross(first: Tensor, second: Tensor, weights: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Sum over samples and tokens of w_t a_t b_t^T, two views of the same tokens (see `ops.correction`).

    Args:
        first: a [B, n, c], such as a linear's inputs in the dense model.
        second: b [B, n, d], such as its inputs after the blocks before it were pruned.
        weights: [B, n], bool or float >= 0, 0 on padding, which is never read.
        dtype: of the products and the sum.

    Returns:
        [c, d] in dtype; the bits of `weighted_gram` where first is second and weights are 0 or 1.

    Raises:
        ValueError: the shapes do not agree, or a weight is negative, NaN or infinite.
    """
    left, kept = _tokens(first, weights)
    right, _ = _tokens(second, weights)
    return _product(_scaled(left, kept, dtype), _scaled(right, kept, dtype), dtype)


def blend(selected: Tensor, everything: Tensor, share: float, masses: tuple[float, float]) -> Tensor:
    """(1 - share) * selected / n_selected + share * everything / n_all, means per token.

    A few selected tokens give a Hessian of low rank; a share of all tokens, about .1 to .3, fills it up. Also
    takes diagonals [c].

    Args:
        selected: sum of w x x^T over the selected tokens, [c, c].
        everything: the same over all tokens.
        share: of the second one, 0 to 1.
        masses: n_selected and n_all, the sums of the token weights behind the two.

    Returns:
        Like selected. One of mass 0 adds nothing.

    Raises:
        ValueError: share or a mass is out of range, or nothing is left.
    """
    if not 0 <= share <= 1:
        raise InputError(f"share is {share}; it has to be from 0 to 1, such as 0.2.")
    return mix_statistics((selected, everything), masses, (1 - share, share))


def damped(hessian: Tensor, damp: float = 0.01) -> Tensor:
    """The Hessian with its diagonal raised, float32 (float64 stays), so that it can be inverted.

    Inputs that were never active (0 on the diagonal) first get the mean diagonal of the others, so that scaling
    the Hessian scales the result; all then get damp times that mean.

    Args:
        hessian: [c, c], sum of w x x^T. Not changed.
        damp: share of the mean diagonal, at least 0.

    Returns:
        [c, c].
    """
    result = hessian.to(torch.promote_types(hessian.dtype, torch.float32), copy=True)
    diagonal = result.diagonal()
    dead = diagonal == 0
    mean = diagonal.sum() / (~dead).sum().clamp(min=1)
    mean = torch.where(mean == 0, torch.ones_like(mean), mean)
    diagonal.copy_(torch.where(dead, mean, diagonal) + damp * mean)
    return result


def check_hessian(weight: Tensor, hessian: Tensor) -> None:
    """Raise ValueError unless weight [o, c] and hessian [c, c] fit and are finite."""
    expected = [weight.shape[1]] * 2
    if list(hessian.shape) != expected:
        raise ValueError(f"hessian has shape {list(hessian.shape)}; expected {expected}.")
    if not bool(weight.isfinite().all() and hessian.isfinite().all()):
        raise InputError("the weight or the Hessian holds NaN or infinity; check the calibration activations.")


def _tokens(inputs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens of weight above 0, [t, c], and their weights [t]."""
    if inputs.dim() != 3 or weights.shape != inputs.shape[:2]:
        shapes = f"{list(inputs.shape)} and {list(weights.shape)}"
        raise ValueError(f"inputs and weights have shapes {shapes}; expected [B, n, c] and [B, n].")
    index = weights.flatten().nonzero().squeeze(1)  # the one wait for a GPU if weights are bool
    kept = weights.flatten().index_select(0, index)
    if kept.dtype != torch.bool and not bool(((kept > 0) & kept.isfinite()).all()):
        raise InputError("a token weight is negative, NaN or infinite; weights have to be finite and at least 0.")
    return inputs.detach().flatten(0, 1).index_select(0, index), kept


def _scaled(tokens: Tensor, kept: Tensor, dtype: torch.dtype) -> Tensor:
    """sqrt(w) x in dtype; bfloat16 tokens that all weigh 1 stay as they are if sums are float32."""
    if kept.dtype == torch.bool or bool((kept == 1).all()):
        as_they_are = tokens.dtype == torch.bfloat16 and dtype == torch.float32
        return tokens if as_they_are else tokens.to(dtype)
    return tokens.to(dtype) * kept.to(dtype).sqrt()[:, None]


def _product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """left^T right in dtype, from [t, c] and [t, d]."""
    if left.dtype == right.dtype == torch.bfloat16:
        first = left.T[None]
        return products(first, first if right is left else right.T[None], tf32=True)[0]
    return left.to(dtype).T @ right.to(dtype)
