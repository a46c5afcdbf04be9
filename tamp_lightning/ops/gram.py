"""Cosines between all tokens of a sample, from one product per sample; what the product rounds is stated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from tamp_lightning.ops.masks import keep_where_

Precision = Literal["exact", "tf32", "bf16"]
"""What is multiplied: the tokens as they are, or rounded to 10 (tf32) or 7 (bf16) bits first. Sums are float32."""

SMALLEST_NORM = 1e-12
"""Shorter tokens keep a length below one: a zero token has cosine 0 with everything."""


@torch.no_grad()
def cosine_gram(tokens: Tensor, valid: Tensor | None = None, precision: Precision = "exact") -> Tensor:
    """Cosine of every token with every other of its sample: one product, then a scale per row and column.

    Tokens are multiplied before they are scaled to length one. So tokens in bfloat16 or float16 keep a product
    of few bits that loses nothing, where the hardware has one: bfloat16 units, or the TF32 units of a GPU.

    Args:
        tokens: [B, n, d], any floating dtype; not changed.
        valid: [B, n] bool, False on padding, whose cosines are 0 whatever it holds; None means no padding.
        precision: `exact` rounds nothing. `tf32` lets a GPU round float32 tokens to TF32; elsewhere it is `exact`.
            `bf16` rounds tokens to bfloat16.

    Returns:
        float32 [B, n, n].
    """
    rows = tokens.detach().bfloat16() if precision == "bf16" else tokens.detach()
    gram = products(rows, rows, tf32=precision == "tf32" or rows.dtype in (torch.bfloat16, torch.float16))
    if valid is not None:
        keep_where_(keep_where_(gram, valid[:, :, None]), valid[:, None, :])
    norm = gram.diagonal(dim1=-2, dim2=-1).sqrt().clamp_(min=SMALLEST_NORM)
    return gram.div_(norm[:, :, None]).div_(norm[:, None, :])


def products(left: Tensor, right: Tensor, tf32: bool) -> Tensor:
    """left @ right^T of each sample, float32 [B, n, m], from [B, n, d] and [B, m, d].

    Nothing is rounded but the sums: factors that are both bfloat16 are multiplied as such. On a GPU, which has no such
    units for float32 sums, `tf32` allows its TF32 units.
    """
    exact_in_bf16 = left.dtype == right.dtype == torch.bfloat16
    backend: Any = getattr(torch.backends.mkldnn, "matmul", None)
    precision = "bf16" if exact_in_bf16 else "ieee"
    if left.is_cuda:
        backend, precision = torch.backends.cuda.matmul, "tf32" if tf32 else "ieee"
    same, left = right is left, left.float()
    right = left if same else right.float()
    with _rounding(backend, precision):
        return torch.bmm(left, right.mT, out=left.new_empty(*left.shape[:2], right.shape[1]))


@contextmanager
def _rounding(backend: Any, precision: str) -> Iterator[None]:
    """What a backend may round float32 factors to; a PyTorch that cannot be told (before 2.9) is left alone."""
    before = getattr(backend, "fp32_precision", None)
    if before is None:
        yield
        return
    backend.fp32_precision = precision
    try:
        yield
    finally:
        backend.fp32_precision = before
