"""What is known of a linear's inputs once all calibration tokens have passed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tamp_lightning.errors import InputError
from tamp_lightning.ops.hessian import blend
from tamp_lightning.ops.mix import mix_statistics


@dataclass(frozen=True)
class Statistics:
    """Weighted sums over the tokens of all samples; what the method does not need is left out."""

    sq_norm: Tensor | None = None
    """[c] float64, sum of w x^2."""
    weight_sum: float = 0.0
    """Sum of the token weights w."""
    hessian: Tensor | None = None
    """[c, c] float32, sum of w x x^T."""
    hessian_all_tokens: Tensor | None = None
    """[c, c] float32, sum of x x^T over all tokens, whatever their weight."""
    count: float = 0.0
    """Number of all tokens."""
    cross: Tensor | None = None
    """[c, c] float32, sum of w x_d x^T with x_d the same token in the dense model."""

    def diagonal(self) -> Tensor:
        """Sum of w x^2, [c].

        Raises:
            InputError: it was not collected.
        """
        if self.sq_norm is None:
            raise InputError("the solver got no statistics of its inputs; collect them.")
        return self.sq_norm

    def blended(self, share: float) -> Tensor:
        """Hessian [c, c] with a share of the one over all tokens mixed in, where tokens were left out.

        Few tokens give a Hessian of low rank. Where every token counted it is returned as it is, to the bit.

        Args:
            share: of the all-token Hessian, 0 to 1.

        Raises:
            InputError: no Hessian was collected.
        """
        if self.hessian is None:
            raise InputError("the solver got no Hessian; collect it.")
        if self.hessian_all_tokens is None or share == 0 or self.weight_sum == self.count:
            return self.hessian
        return blend(self.hessian, self.hessian_all_tokens, share, (self.weight_sum, self.count))


def mixed(parts: Mapping[int, Statistics], lambdas: Mapping[int, float]) -> Statistics:
    """Statistics in which every modality counts as its lambda says, whatever its number of tokens.

    Args:
        parts: statistics of each modality's tokens alone.
        lambdas: weight of each modality, at least 0.

    Returns:
        sum over modalities of lambda_m S_m / n_m; a modality that stands alone comes back as it is.

    Raises:
        InputError: nothing is left.
    """
    counted = {m: part for m, part in parts.items() if part.weight_sum > 0}
    present = list(counted.values())
    shares = [lambdas[m] for m in counted]
    if len(present) == 1 and shares[0] > 0:
        return present[0]
    masses = [part.weight_sum for part in present]
    hessians = [part.hessian for part in present if part.hessian is not None]
    return Statistics(
        sq_norm=mix_statistics([part.diagonal() for part in present], masses, shares),
        # what comes out are means, so that the mass behind them is the sum of the lambdas
        weight_sum=sum(shares),
        hessian=mix_statistics(hessians, masses, shares) if hessians else None,
        hessian_all_tokens=torch.stack(hessians).sum(0) if hessians else None,
        count=sum(masses),
    )
