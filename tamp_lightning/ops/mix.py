"""Statistics mixed from separate ones per modality, so that each counts as much as wanted."""

import math
from collections.abc import Hashable, Mapping, Sequence

from torch import Tensor

from tamp_lightning.errors import InputError

Statistics = Mapping[Hashable, Tensor] | Tensor | Sequence[Tensor]
Numbers = Mapping[Hashable, float] | Tensor | Sequence[float]


def mix_statistics(per_modality: Statistics, masses: Numbers, lambdas: Numbers) -> Tensor:
    """Sum over modalities m of lambda_m S_m / n_m: means per token, weighted.

    With lambda_m = n_m / sum of n it is the plain mean over all tokens. Constant factors change no mask.

    Args:
        per_modality: S_m, the sum over a modality's tokens of w x^2 [c] or w x x^T [c, c]: a mapping, or a
            sequence or tensor with one entry per modality. Entries of weight or mass 0 are not read.
        masses: n_m, the sum of the token weights w behind S_m, at least 0; keyed or ordered as per_modality.
        lambdas: weight of each modality, at least 0; likewise.

    Returns:
        Like one S_m. A modality without tokens adds nothing.

    Raises:
        ValueError: keys or lengths differ, a mass or lambda is not a finite number >= 0, or nothing is left.
    """
    total: Tensor | None = None
    for name, statistic, mass, share in _aligned(per_modality, masses, lambdas):
        for kind, value in (("mass", mass), ("lambda", share)):
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"the {kind} of {name} is {value}; it has to be a finite number, at least 0.")
        if mass > 0 and share > 0:
            part = statistic * (share / mass)
            total = part if total is None else total.add_(part)
    if total is None:
        raise InputError("no modality has both tokens and a weight; raise a lambda of one that occurs.")
    return total


def _aligned(
    per_modality: Statistics, masses: Numbers, lambdas: Numbers
) -> list[tuple[Hashable, Tensor, float, float]]:
    """Name, statistic, mass and lambda of each modality."""
    groups = [_as_mapping(group) for group in (per_modality, masses, lambdas)]
    if not groups[0].keys() == groups[1].keys() == groups[2].keys():
        keys = ", ".join(str(list(group)) for group in groups)
        raise ValueError(f"statistics, masses and lambdas name different modalities: {keys}.")
    return [(k, groups[0][k], float(groups[1][k]), float(groups[2][k])) for k in groups[0]]


def _as_mapping(group: Statistics | Numbers) -> Mapping[Hashable, Tensor]:
    return group if isinstance(group, Mapping) else dict(enumerate(group))  # type: ignore[return-value,arg-type]
