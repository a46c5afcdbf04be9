"""The attention that the last token of each sample pays to all its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from tamp_lightning.checkpoint.facts import ModelFacts
from tamp_lightning.compat.modeling import sdpa_attention_forward, sdpa_mask
from tamp_lightning.errors import InputError
from tamp_lightning.passes.contract import BlockPass

IMPLEMENTATION = "tamp_sdpa"


def last_row(query: Tensor, key: Tensor, last: Tensor, scaling: float, mask: Tensor | None = None) -> Tensor:
    """Softmax attention of one query per sample, averaged over heads.

    Args:
        query: [B,H,n,d], rotary embedding applied.
        key: [B,K,n,d] with H a multiple of K.
        last: [B] position of the query.
        scaling: factor of the logits.
        mask: [B or 1,1,n,n] bool, True = may attend, as in a sliding window; None = all tokens before.

    Returns:
        [B,n] float32; tokens after `last` get 0, all together sum to 1 (paper section 3.3, a = A[-1,:]).
    """
    batch, heads, n, width = query.shape
    rows = torch.arange(batch, device=query.device)
    picked = query[rows, :, last].view(batch, key.shape[1], heads // key.shape[1], width)
    logits = (picked.float() * scaling) @ key.float().transpose(2, 3)
    unseen = torch.arange(n, device=query.device) > last[:, None]
    if mask is not None:
        unseen |= ~mask.expand(batch, -1, -1, -1)[rows, 0, last]
    return logits.masked_fill(unseen[:, None, None], -torch.inf).softmax(-1).mean((1, 2))


def _collects(pl_module: BlockPass) -> bool:
    return pl_module.now.kind == "prune" and not pl_module.now.replays


@dataclass(frozen=True)
class AttentionRow:
    """What one block's attention did with one batch."""

    block: int
    ids: Tensor
    """[B] samples of the batch."""
    row: Tensor
    """[B,n] float32: attention of each sample's last valid token, mean over heads."""


class AttentionCollector(L.Callback):
    """Lets the decoder's sdpa attention note the row of each sample's last valid token.

    The decoder's own output does not change: the row is one extra softmax, no n x n map is ever held. Towers that run
    inside of the decoder are not listened to, and a block without attention has no row.

    Attributes:
        last: the last row that was noted; `of` hands it out, if it is the one that is asked for.
    """

    def __init__(self) -> None:
        self.last: AttentionRow | None = None
        self._before: str | None = None
        self._module: BlockPass | None = None
        self._block_of: dict[int, int] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Register the attention function and switch the decoder to it.

        Raises:
            InputError: the decoder does not run sdpa attention.
        """
        decoder = decoder_of(pl_module.stream.model, pl_module.stream.facts)
        refuse_unwatched(decoder)
        self._before = decoder.config._attn_implementation
        AttentionInterface.register(IMPLEMENTATION, self._attend)
        AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
        decoder.set_attn_implementation(IMPLEMENTATION)
        self._module = pl_module
        blocks = pl_module.stream.model.get_submodule(pl_module.stream.facts.blocks).children()
        self._block_of = {id(part): number for number, block in enumerate(blocks) for part in block.modules()}

    def _attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        block = self._block_of.get(id(module))
        # gradients are asked for only when the statistics are there already
        if block is not None and self._module and _collects(self._module) and not torch.is_grad_enabled():
            scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
            last = self._module.current.valid.long().cumsum(1).argmax(1)
            row = last_row(query, key, last, scaling, attention_mask)
            self.last = AttentionRow(block, self._module.current.ids, row)
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    def of(self, pl_module: BlockPass) -> Tensor | None:
        """The row [B,n] of the current block and batch; None if the block did not attend to it."""
        noted, current = self.last, pl_module.current
        if noted is None or noted.block != pl_module.index or not torch.equal(noted.ids, current.ids):
            return None
        return noted.row

    def on_fit_end(self, trainer: L.Trainer, pl_module: BlockPass) -> None:
        """Give the decoder its own attention back."""
        self._restore(pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: BlockPass, exception: BaseException) -> None:
        """Likewise when the run breaks."""
        self._restore(pl_module)

    def _restore(self, pl_module: BlockPass) -> None:
        if self._before is not None:
            decoder_of(pl_module.stream.model, pl_module.stream.facts).set_attn_implementation(self._before)
        self._before = self._module = self.last = None
        self._block_of = {}


def decoder_of(model: PreTrainedModel, facts: ModelFacts) -> PreTrainedModel:
    """The module that holds the blocks, whose config says how they attend."""
    decoder = model.get_submodule(facts.blocks.rpartition(".")[0])
    return decoder if isinstance(decoder, PreTrainedModel) else model.get_decoder()


def check_attention(model: PreTrainedModel, facts: ModelFacts, rule: str) -> None:
    """Refuse a token rule by attention for a decoder whose attention cannot be watched; no weight is needed.

    Args:
        model: the model.
        facts: where its blocks are.
        rule: name of the token rule.

    Raises:
        InputError: blocks attend to something else than the sequence, none attends, or not by sdpa.
    """
    if not facts.self_attention or not any(facts.attends(k) for k in range(len(facts.linears))):
        where = "every block" if not facts.self_attention else "some block"
        raise InputError(
            f"tokens {rule} needs self-attention in {where}, which {type(model).__name__} lacks: use tokens all"
        )
    refuse_unwatched(decoder_of(model, facts))


def refuse_unwatched(decoder: PreTrainedModel) -> None:
    """Raise InputError if the decoder does not run sdpa attention."""
    if (kind := decoder.config._attn_implementation) != "sdpa":
        raise InputError(f"attention implementation is {kind!r}: load the model with 'sdpa'")
