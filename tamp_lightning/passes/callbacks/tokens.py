"""Inputs and outputs of the current block's linears, one batch at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import MappingProxyType

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tamp_lightning.checkpoint.adapter import adapter_of
from tamp_lightning.checkpoint.experts import expert_layers
from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.compat.experts import are_experts, call_of
from tamp_lightning.errors import InputError
from tamp_lightning.passes.contract import BlockPass, Pass, PassCallback, Tokens
from tamp_lightning.passes.routing import Routed
from tamp_lightning.stream.stubs import replaced
from tamp_lightning.stream.verify import as_tokens


def unreached(linear: Linear) -> InputError:
    """The error of a linear whose block ran without it."""
    return InputError(f"{linear.full} saw no calibration token: exclude it, or calibrate with samples that reach it")


def check_finite(linear: str, side: str, finite: Tensor, ids: Tensor) -> None:
    """Raise InputError naming the linear, its side, "inputs" or "outputs", and the first sample not finite [B]."""
    if not bool(finite.all()):
        sample = int(ids[int((~finite).long().argmax())])
        raise InputError(f"{linear} has NaN or infinite {side} in calibration sample {sample}: check the checkpoint")


@dataclass
class TokenCollector(PassCallback):
    """Hooks the prunable linears and experts of the current block; `latest` and `routed` hand over what they saw last.

    The only owner of forward hooks: they live for one epoch, i.e. one pass over one block.
    """

    outputs_read: bool = True
    """False: in the passes that collect statistics nobody reads what linears put out, so the last may put out zeros."""
    _tokens: dict[Linear, Tokens] = field(default_factory=dict)
    _routed: dict[Linear, Routed] = field(default_factory=dict)
    _handles: list[RemovableHandle] = field(default_factory=list)
    _spared: ExitStack | None = None
    _reshaped: tuple[Tensor, Tensor] | None = None
    _ran_last: nn.Module | None = None

    def latest(self) -> Mapping[Linear, Tokens]:
        """What the linears of the current block saw when it last ran."""
        return MappingProxyType(dict(self._tokens))

    def routed(self) -> Mapping[Linear, Routed]:
        """What the block's layers of experts were given when it last ran, by a linear that stands for the layer."""
        return MappingProxyType(dict(self._routed))

    def wanted(self, now: Pass) -> bool:
        """Every pass of which something is to be learnt."""
        return not now.replays

    def pass_starts(self, pl_module: BlockPass) -> None:
        """Hook the block of this epoch."""
        facts, block = pl_module.stream.facts, pl_module.block
        written = adapter_of(pl_module.stream.model.config).in_place
        for linear in facts.linears[pl_module.index]:
            if linear.piece is None:
                module = block.get_submodule(linear.name)
                copies = any(re.search(pattern, linear.name) for pattern in written)
                self._handles.append(module.register_forward_hook(self._keep(pl_module, linear, copies)))
        for layer in expert_layers(facts.linears[pl_module.index]):
            module, full = block.get_submodule(layer), f"{facts.blocks}.{pl_module.index}.{layer}"
            one = Linear(pl_module.index, layer, full, (0, 0))
            self._handles.append(module.register_forward_hook(self._keep_routed(pl_module, one), with_kwargs=True))

    def _keep_routed(self, pl_module: BlockPass, linear: Linear) -> Callable[..., None]:
        routed_to = adapter_of(pl_module.stream.model.config).routed

        def hook(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> None:
            self._ran_last = module
            call = call_of(module, (*args, *kwargs.values()), output)
            meant = routed_to(linear.name, pl_module.current.kwargs)
            meant = torch.ones_like(pl_module.current.valid) if meant is None else meant
            self._routed[linear] = Routed.of(linear.full, module, call, meant)

        return hook

    def _keep(
        self, pl_module: BlockPass, linear: Linear, copies: bool
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            inputs = args[0]
            self._ran_last = module
            if inputs.ndim != 3:
                inputs, output = self._shaped(pl_module, inputs, output)
            self._tokens[linear] = Tokens(inputs, output.clone() if copies else output)

        return hook

    def _shaped(self, pl_module: BlockPass, inputs: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """Input and output as [B,n,c]; linears that read one tensor still read one, until another is read."""
        shape = pl_module.current.hidden.shape
        if self._reshaped is None or self._reshaped[0] is not inputs:
            tokens = as_tokens(inputs, shape)
            assert tokens is not None  # the guard has looked at it
            self._reshaped = inputs, tokens
        return self._reshaped[1], output.reshape(*shape[:2], output.shape[-1])

    def batch_passed(self, pl_module: BlockPass, batch: object, batch_idx: int) -> None:
        """Spare the batches to come what ran last, linear or experts: nothing that is looked at depends on it."""
        collects, last = pl_module.now.collects and not pl_module.now.is_dense, self._ran_last
        if self.outputs_read or not collects or last is None or self._spared:
            return
        self._spared = ExitStack()
        self._spared.enter_context(replaced([last], [_zeros(last)]))

    def pass_ends(self, pl_module: BlockPass) -> None:
        """Remove the hooks and let the last batch go."""
        self._drop()

    def on_exception(self, trainer: L.Trainer, pl_module: BlockPass, exception: BaseException) -> None:
        """Leave no hook on a model that belongs to somebody else."""
        self._drop()

    def _drop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._tokens.clear()
        self._routed.clear()
        self._ran_last = None
        self._reshaped = None
        if self._spared:
            self._spared.close()
            self._spared = None


def _zeros(module: nn.Module) -> Callable[..., Tensor]:
    """What has the shape of the module's output and costs nothing."""
    if are_experts(module):
        return lambda hidden, *_, **__: torch.zeros_like(hidden)
    width = module.get_parameter("weight").shape[0]
    return lambda inputs: inputs.new_zeros(*inputs.shape[:-1], width)
