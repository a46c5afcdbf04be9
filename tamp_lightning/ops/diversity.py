"""How alike the tokens of a linear's output are, within and across modalities (TAMP section 3.2, DAS)."""

import math

import torch
from torch import Tensor

MODALITIES = ("text", "image", "video", "audio")
"""Name of each modality id; the id is the position."""

SMALLEST_NORM = 1e-12
"""Shorter tokens keep a length below one: a zero token has cosine 0 with everything."""


@torch.no_grad()
def modality_cosine(
    tokens: Tensor, modality: Tensor, *, valid: Tensor | None = None, positive_only: bool = False
) -> Tensor:
    """Mean cosine similarity between the tokens of every pair of modalities (TAMP section 3.2).

    Args:
        tokens: linear outputs [n, d] or [B, n, d], any floating dtype; computed in float32.
        modality: id per token, [n] or [B, n]: 0 text, 1 image, 2 video, 3 audio.
        valid: [n] or [B, n] bool, False on padding; None means no padding.
        positive_only: within a modality, average only the strictly positive cosines, as the reference code
            does. It needs the n x n Gram matrix; otherwise a closed form of O(n d) is used.

    Returns:
        Symmetric float32 [4, 4] or [B, 4, 4]; NaN where a pair has no two distinct tokens to compare.

    Raises:
        ValueError: the shapes do not agree.
    """
    check_token_shapes(tokens, modality, valid)
    batched = tokens.dim() == 3
    if not batched:
        tokens, modality = tokens[None], modality[None]
        valid = None if valid is None else valid[None]
    units = unit_rows(tokens, valid)
    gram = units @ units.mT if positive_only else None
    cosine = unit_cosine(units, modality, valid, gram)
    return cosine if batched else cosine[0]


def unit_rows(tokens: Tensor, valid: Tensor | None) -> Tensor:
    """Tokens [B, n, d] scaled to length one in float32; padding becomes zero, whatever it held."""
    units = tokens.to(torch.float32, copy=True)
    if valid is not None:
        units.masked_fill_(~valid[..., None], 0)
    return units.div_(torch.linalg.vector_norm(units, dim=-1, keepdim=True).clamp_(min=SMALLEST_NORM))


def unit_cosine(units: Tensor, modality: Tensor, valid: Tensor | None, gram: Tensor | None = None) -> Tensor:
    """Mean cosines [B, 4, 4] of unit tokens [B, n, d].

    With `gram` [B, n, n], means within a modality are taken over its strictly positive entries only.
    """
    member = modality[:, None, :] == torch.arange(len(MODALITIES), device=modality.device)[:, None]
    if valid is not None:
        member = member & valid[:, None, :]
    member_f = member.float()
    sums = member_f @ units
    count = member_f.sum(-1)
    # mean over a x b of <u_i, u_k> is the product of the two mean vectors
    cosine = (sums @ sums.mT) / (count[:, :, None] * count[:, None, :])
    if gram is None:
        own = (member_f @ torch.linalg.vector_norm(units, dim=-1, keepdim=True).square()).squeeze(-1)
        intra = (sums.square().sum(-1) - own) / (count * (count - 1))
        intra = intra.masked_fill(count < 2, math.nan)
    else:
        intra = _positive_intra(gram, member_f)
    cosine.diagonal(dim1=-2, dim2=-1).copy_(intra)
    return cosine


def _positive_intra(gram: Tensor, member: Tensor) -> Tensor:
    """Mean of the strictly positive off-diagonal cosines inside each modality, [B, 4]; 0/0 gives the NaN."""
    positive = gram.clamp(min=0)
    positive.diagonal(dim1=-2, dim2=-1).zero_()
    total = ((member @ positive) * member).sum(-1)
    pairs = ((member @ (positive > 0).float()) * member).sum(-1)
    return total / pairs


def mean_over_pairs(cosine: Tensor) -> Tensor:
    """Mean of the present entries of the upper triangle of [..., 4, 4], diagonal included; NaN if none is."""
    rows, columns = torch.triu_indices(*cosine.shape[-2:], device=cosine.device)
    return cosine[..., rows, columns].nanmean(-1)


def diversity_score(cosine: Tensor) -> float:
    """DAS score of a linear: mean of 1 - cosine over the modality pairs present (TAMP section 3.2).

    Args:
        cosine: [4, 4] from `modality_cosine`; only its upper triangle, diagonal included, is read.

    Returns:
        Between 0 (all tokens point the same way) and 2; NaN when no pair is present.
    """
    return 1.0 - float(mean_over_pairs(cosine.double()))


def check_token_shapes(tokens: Tensor, modality: Tensor, valid: Tensor | None) -> None:
    """Raise ValueError unless tokens are [n, d] or [B, n, d] and the others have one entry per token."""
    if tokens.dim() not in (2, 3):
        raise ValueError(f"tokens have shape {list(tokens.shape)}; expected [n, d] or [B, n, d].")
    for name, value in (("modality", modality), ("valid", valid)):
        expected = list(tokens.shape[:-1])
        if value is not None and list(value.shape) != expected:
            raise ValueError(f"{name} has shape {list(value.shape)}; expected {expected}, one per token.")
