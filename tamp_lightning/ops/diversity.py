"""How alike the tokens of a linear's output are, within and across modalities (TAMP section 3.2, DAS)."""

import math

import torch
from torch import Tensor

from tamp_lightning.ops.gram import SMALLEST_NORM, cosine_gram
from tamp_lightning.ops.masks import keep_where

MODALITIES = ("text", "image", "video", "audio")
"""Name of each modality id; the id is the position."""


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

    Examples:
        >>> outputs, text_text_image = torch.tensor([[1.0, 0], [0, 1], [1, 0]]), torch.tensor([0, 0, 1])
        >>> modality_cosine(outputs, text_text_image)[:2, :2]
        tensor([[0.0000, 0.5000],
                [0.5000,    nan]])
    """
    check_token_shapes(tokens, modality, valid)
    batched = tokens.dim() == 3
    if not batched:
        tokens, modality = tokens[None], modality[None]
        valid = None if valid is None else valid[None]
    present = torch.ones_like(modality, dtype=torch.bool) if valid is None else valid
    if positive_only:
        cosine = gram_cosine(cosine_gram(tokens, valid), modality, present, positive_only=True)
    else:
        rows = (tokens.detach() if valid is None else keep_where(tokens.detach(), valid[..., None])).float()
        cosine = _closed_form(rows, _members(modality, present))
    return cosine if batched else cosine[0]


def pairs_present(modality: Tensor, valid: Tensor) -> Tensor:
    """Pairs of modalities of which a sample has two distinct tokens, bool [B, 4, 4]; the others' cosine is NaN."""
    count = _members(modality, valid).sum(-1)
    present = (count[:, :, None] > 0) & (count[:, None, :] > 0)
    present.diagonal(dim1=-2, dim2=-1).copy_(count > 1)
    return present


def _members(modality: Tensor, present: Tensor) -> Tensor:
    """1.0 where a token [B, n] is of a modality, [B, 4, n]."""
    known = torch.arange(len(MODALITIES), device=modality.device)
    return ((modality[:, None, :] == known[:, None]) & present[:, None, :]).float()


def _closed_form(rows: Tensor, member: Tensor) -> Tensor:
    """Mean cosines [B, 4, 4] of tokens [B, n, d]: the mean of <u_i, u_k> over a x b is a product of mean vectors."""
    norm = torch.linalg.vector_norm(rows, dim=-1)
    scale = norm.clamp(min=SMALLEST_NORM).reciprocal_()
    sums = (member * scale[:, None, :]) @ rows
    own = (member @ (norm * scale).square_()[..., None]).squeeze(-1)
    return _means(sums @ sums.mT, own, member.sum(-1))


def gram_cosine(gram: Tensor, modality: Tensor, present: Tensor, positive_only: bool = False) -> Tensor:
    """Mean cosines [B, 4, 4] from all cosines [B, n, n], those of padding being 0 (`ops.gram.cosine_gram`).

    With `positive_only`, means within a modality are taken over the strictly positive entries.
    """
    member = _members(modality, present)
    own = (member @ gram.diagonal(dim1=-2, dim2=-1)[..., None]).squeeze(-1)
    cosine = _means((member @ gram) @ member.mT, own, member.sum(-1))
    if positive_only:
        cosine.diagonal(dim1=-2, dim2=-1).copy_(_positive_intra(gram, member))
    return cosine


def _means(total: Tensor, own: Tensor, count: Tensor) -> Tensor:
    """Means of sums of cosines [B, 4, 4]; within a modality without each token's `own` cosine with itself [B, 4]."""
    cosine = total / (count[:, :, None] * count[:, None, :])
    intra = (total.diagonal(dim1=-2, dim2=-1) - own) / (count * (count - 1))
    cosine.diagonal(dim1=-2, dim2=-1).copy_(intra.masked_fill(count < 2, math.nan))
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
