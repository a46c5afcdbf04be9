"""Checks that running the blocks one by one is what the model does, and that statistics see its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tamp_lightning.checkpoint.experts import expert_layers
from tamp_lightning.checkpoint.facts import ModelFacts
from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.compat.experts import token_count
from tamp_lightning.errors import InputError
from tamp_lightning.stream.calls import Calls


class _Reached(Exception):
    """The last block has run: nothing after it needs to."""


@torch.no_grad()
def check_walk(
    model: PreTrainedModel, facts: ModelFacts, batch: Mapping[str, Tensor], hidden: Tensor, calls: Calls
) -> None:
    """Walk over all blocks with one batch and compare with the model's own forward, bit for bit.

    Args:
        model: a whole model, in eval mode.
        facts: where its decoder blocks and their prunable linears are.
        batch: the model's inputs.
        hidden: [B,n,h]: what its first block was called with.
        calls: what every block was called with, masks included.

    Raises:
        InputError: the hidden states after the last block differ, or a linear sees something else than the tokens.
    """
    blocks = model.get_submodule(facts.blocks)
    assert isinstance(blocks, nn.ModuleList)
    calls = calls.to(hidden.device)  # what blocks store for each other here belongs to the check alone
    kwargs = calls.kwargs[calls.kinds[0]]
    for index, block in enumerate(blocks):
        if index > 0:
            hidden, kwargs = calls.enter(index, hidden)
        with token_guard(block, facts.linears[index], hidden.shape):
            hidden = block(hidden, **kwargs)
        if not isinstance(hidden, Tensor):
            raise InputError(
                f"{facts.blocks}.{index} returns a {type(hidden).__name__}: expected the hidden state alone"
            )
    own = _behind(model, blocks[-1], batch)
    # Weights that are not finite have an error of their own, which names the place.
    if not torch.equal(hidden, own) and bool(own.isfinite().all()):
        worst = float((hidden - own).abs().max())
        raise InputError(
            f"running the decoder blocks of {type(model).__name__} one by one does not give what the model computes "
            f"(off by up to {worst:.2g}): its blocks work together in a way that is not supported"
        )


def _behind(model: PreTrainedModel, block: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """What `block` returns in the model's own forward."""
    seen: list[Tensor] = []

    def stop(_: nn.Module, __: tuple, output: Tensor) -> None:
        seen.append(output)
        raise _Reached

    handle = block.register_forward_hook(stop)
    try:
        with suppress(_Reached):
            model(**batch, use_cache=False)
    finally:
        handle.remove()
    return seen[0]


def as_tokens(inputs: Tensor, shape: Sequence[int]) -> Tensor | None:
    """What a linear reads as [B,n,c], if it is every token of the sequence once; otherwise None.

    Args:
        inputs: [B,n,c], or the same with axes of length 1 before n or c, as latent attention has them, or with the
            samples one after the other [B*n,c].
        shape: (B, n, ...): the shape of the hidden state.
    """
    batch, length = shape[:2]
    tokens = tuple(size for size in inputs.shape[1:-1] if size != 1)
    whole = inputs.shape[0] == batch and tokens == ((length,) if length != 1 else ())
    flat = inputs.ndim == 2 and inputs.shape[0] == batch * length
    if inputs.ndim < 2 or not (flat or (inputs.ndim >= 3 and whole)):
        return None
    return inputs if inputs.ndim == 3 else inputs.reshape(batch, length, inputs.shape[-1])


@contextmanager
def token_guard(block: nn.Module, linears: Sequence[Linear], shape: Sequence[int]) -> Iterator[None]:
    """Refuse linears whose input is not the sequence's tokens, for their statistics would be of something else.

    Args:
        block: the decoder block that runs inside.
        linears: its prunable linears.
        shape: (B, n, ...): the shape of the hidden state.

    Raises:
        InputError: inside: a linear is called twice, or with anything but the tokens (`as_tokens`); a layer of experts
            is called twice, or with more than the tokens.
    """
    called: set[object] = set()

    def check_experts(layer: str, inputs: Tensor) -> None:
        # which tokens they are is asked where statistics are made: some layers get those of one modality alone
        count = token_count(block.get_submodule(layer), inputs)
        if layer in called or inputs.ndim > 3 or count > shape[0] * shape[1]:
            what = "is called twice" if layer in called else f"reads a tensor of shape {tuple(inputs.shape)}"
            raise InputError(
                f"the experts {layer} of a block {what} where tokens of the sequence are expected once "
                f"({shape[0]} x {shape[1]}): leave them dense with exclude: ['{layer.rpartition('.')[2]}\\.']"
            )
        called.add(layer)

    def check(linear: Linear, inputs: Tensor) -> None:
        if as_tokens(inputs, shape) is None or linear in called:
            what = "is called twice" if linear in called else f"reads a tensor of shape {tuple(inputs.shape)}"
            raise InputError(
                f"{linear.full} {what} where every token of the sequence is expected once "
                f"({shape[0]} x {shape[1]}): exclude it"
            )
        called.add(linear)

    handles = [
        block.get_submodule(one.name).register_forward_pre_hook(lambda _, args, one=one: check(one, args[0]))
        for one in linears
        if one.piece is None
    ]
    handles += [
        block.get_submodule(layer).register_forward_pre_hook(lambda _, args, layer=layer: check_experts(layer, args[0]))
        for layer in expert_layers(linears)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
