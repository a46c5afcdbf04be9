"""A decoder run block by block before a weight is read: what cannot work is refused here rather than in a pass."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from tamp_lightning.checkpoint.facts import ModelFacts
from tamp_lightning.compat.experts import are_experts
from tamp_lightning.compat.modeling import sdpa_mask
from tamp_lightning.errors import InputError
from tamp_lightning.stream.calls import move, own_stores, refuse_calls
from tamp_lightning.stream.stubs import BlockCall, run_stubs
from tamp_lightning.stream.verify import token_guard

IMPLEMENTATION = "tamp_rehearsal"
LENGTH = 8
"""Tokens of the text that is rehearsed with."""


@torch.no_grad()
def rehearse(model: PreTrainedModel, facts: ModelFacts) -> ModelFacts:
    """Run the decoder's own loop over stubs with a few text tokens, then every block by itself on the meta device.

    Nothing is computed: what is not a block is filled with zeros that take no memory, and blocks have no weights at
    all. A model that does not take text alone, or a block whose shapes depend on its numbers, is left to the first
    calibration batch.

    Args:
        model: with weights or without; it is not changed.
        facts: where its blocks and linears are.

    Returns:
        The facts, with those blocks told apart that have no self-attention.

    Raises:
        InputError: the blocks cannot be run one by one, or a linear reads something else than the sequence's tokens.
    """
    name, hollow = type(model).__name__, _hollow(model, facts.blocks)
    blocks = hollow.get_submodule(facts.blocks)
    assert isinstance(blocks, nn.ModuleList)
    decoder = hollow.get_submodule(facts.blocks.rpartition(".")[0])
    with _noted(decoder) as attends:
        try:
            seen = run_stubs(hollow, blocks, ((), {**_text(facts, model), "use_cache": False}))
        except Exception as error:  # a model may need media, or more than ids; the first batch has them
            _refuse_unplaced(model, facts, error)
            return facts
        if not seen:
            return facts
        _refuse_tuple(name, blocks[0], seen[0])
        if len({call.index for call in seen}) == len(blocks):  # others are called when there are media
            refuse_calls(name, seen, len(blocks))
        return _per_block(facts, blocks, seen, attends)


def _per_block(
    facts: ModelFacts, blocks: nn.ModuleList, seen: Sequence[BlockCall], attends: list[bool] | None
) -> ModelFacts:
    found = [True] * len(blocks)
    moved: dict[int, Any] = {}
    for call, kwargs in zip(seen, own_stores([call.kwargs for call in seen]), strict=True):
        paid = attends if attends is not None else []
        paid.clear()
        shape = call.hidden.shape
        with token_guard(blocks[call.index], facts.linears[call.index], shape):
            if _run(blocks[call.index], call.hidden, move(kwargs, "meta", moved)) is not None:
                found[call.index] = attends is None or any(paid)
    return facts if all(found) else replace(facts, attention=tuple(found))


def _run(block: nn.Module, hidden: Tensor, kwargs: dict[str, Any]) -> Any:
    """What a block returns, or None where it cannot run without numbers."""
    try:
        return block(hidden.to("meta"), **kwargs)
    except (NotImplementedError, RuntimeError):
        return None


def _refuse_tuple(name: str, block: nn.Module, call: BlockCall) -> None:
    output = _run(block, call.hidden, move(own_stores([call.kwargs])[0], "meta", {}))
    if isinstance(output, tuple | list):
        raise InputError(
            f"the decoder blocks of {name} return a {type(output).__name__} rather than the hidden state alone, as in "
            "releases of transformers before 5: such families are not supported"
        )


def _refuse_unplaced(model: PreTrainedModel, facts: ModelFacts, error: Exception) -> None:
    """Refuse a model that needs media, none of whose tokens stand for any."""
    parts = [part for part in ("vision_config", "audio_config") if getattr(model.config, part, None) is not None]
    if parts and not facts.modality_ids:
        why = " ".join(str(error).split())
        raise InputError(
            f"{type(model).__name__} does not run on text alone ({why}), and no token is known to stand for its "
            "pictures or sounds: it cannot be calibrated, unless an adapter's placeholders name some"
        ) from None


def _text(facts: ModelFacts, model: PreTrainedModel) -> dict[str, Tensor]:
    """A few tokens of text, none of them a placeholder or padding."""
    config = model.config.get_text_config()
    taken = {*facts.modality_ids, getattr(config, "pad_token_id", None)}
    token = next(i for i in range(config.vocab_size) if i not in taken)
    ids = torch.full((1, LENGTH), token)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _hollow(model: PreTrainedModel, blocks: str) -> PreTrainedModel:
    """A copy without weights: zeros on the CPU that take no memory, and in the blocks parameters without numbers."""
    memo: dict[int, Tensor] = {}
    for path, module in model.named_modules():
        inside = f"{path}.".startswith(f"{blocks}.")
        for own in (module._parameters, module._buffers):
            for value in own.values():
                if value is not None:
                    memo[id(value)] = _emptied(value, inside)
    return copy.deepcopy(model, memo)


def _emptied(value: Tensor, inside: bool) -> Tensor:
    if not isinstance(value, nn.Parameter) and not inside and not value.is_meta:
        return value.detach().cpu()  # buffers, such as frequencies, are computed with
    empty = torch.empty_like(value, device="meta") if inside else torch.zeros((), dtype=value.dtype).expand(value.shape)
    return nn.Parameter(empty, requires_grad=False) if isinstance(value, nn.Parameter) else empty


def _as_given(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.empty_like(hidden)


@contextmanager
def _noted(decoder: nn.Module) -> Iterator[list[bool] | None]:
    """Whether attention, as it is called inside, is paid by the tokens to the tokens; None where that does not show.

    Experts are not run: which tokens they get depends on numbers.
    """
    found: list[bool] = []

    def attend(_: nn.Module, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any) -> tuple[Tensor, None]:
        found.append(query.shape[2] == key.shape[2])
        return value.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[-1]), None

    for module in decoder.modules():
        if are_experts(module):
            module.forward = _as_given
    AttentionInterface.register(IMPLEMENTATION, attend)
    AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
    if isinstance(decoder, PreTrainedModel) and decoder.config._attn_implementation == "sdpa":
        decoder.set_attn_implementation(IMPLEMENTATION)
        yield found
    else:  # whoever needs attention refuses what is not sdpa
        yield None
