"""How much the output tokens of experts differ, each among the tokens that are routed to it."""

from __future__ import annotations

import torch
from torch import Tensor

from tamp_lightning.compat.experts import activated, projected, put_out
from tamp_lightning.methods.allocation import Das
from tamp_lightning.ops.diversity import MODALITIES
from tamp_lightning.passes.callbacks.tokens import check_finite
from tamp_lightning.passes.routing import Routed


def expert_cosines(layer: str, routed: Routed, rule: Das, seen: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean cosines of each sample, on average over the experts that have such a pair of tokens.

    An expert's matrix sees no tokens but its own, so that its outputs are compared among these. Experts share a score:
    one expert's few tokens of a calibration set would say little.

    Args:
        layer: full name of the layer of experts, for messages.
        routed: what it was given in a batch.
        rule: measures the cosines.
        seen: ids [B], modality [B, n] and bool [B, n], which tokens count.

    Returns:
        Of what gate and up put out, side by side, and of what `down_proj` puts out: [B, 4, 4] each, NaN where no expert
        has such a pair.

    Raises:
        InputError: an output is NaN or infinite.
    """
    ids, modality, counted = seen
    kinds = modality.flatten()[routed.places]
    shape = (2, len(ids), len(MODALITIES), len(MODALITIES))
    total, count = kinds.new_zeros(shape, dtype=torch.float64), kinds.new_zeros(shape)
    for expert, tokens, _ in routed.visits(counted):
        first = projected(routed.module, expert, routed.hidden[tokens])
        second = put_out(routed.module, expert, activated(routed.module, first))
        samples = routed.samples[tokens]
        for side, (values, name) in enumerate(((first, "gate_proj"), (second, "down_proj"))):
            finite = torch.ones(len(ids), dtype=torch.bool, device=values.device)
            finite[samples[~values.isfinite().all(-1)]] = False
            check_finite(f"{layer}.{expert}.{name}", "outputs", finite, ids)
            for sample in samples.unique().tolist():
                own = samples == sample
                present = torch.ones(1, int(own.sum()), dtype=torch.bool, device=values.device)
                cosine = rule.score(values[own][None], kinds[tokens[own]][None], present)[0].double()
                known = ~cosine.isnan()
                total[side, sample] += torch.where(known, cosine, 0.0)
                count[side, sample] += known
    mean = (total / count).float()  # 0 / 0 where there was nothing to compare
    return mean[0], mean[1]
