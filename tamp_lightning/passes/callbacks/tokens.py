"""Inputs and outputs of the current block's linears, one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import MappingProxyType

import lightning as L
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.errors import InputError
from tamp_lightning.passes.contract import BlockPass, Pass, PassCallback, Tokens
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
    """Hooks the prunable linears of the current block; `latest` hands over what they saw in its last run.

    The only owner of forward hooks: they live for one epoch, i.e. one pass over one block.
    """

    outputs_read: bool = True
    """False: in the passes that collect statistics nobody reads what linears put out, so the last may put out zeros."""
    _tokens: dict[Linear, Tokens] = field(default_factory=dict)
    _handles: list[RemovableHandle] = field(default_factory=list)
    _spared: ExitStack | None = None
    _reshaped: tuple[Tensor, Tensor] | None = None

    def latest(self) -> Mapping[Linear, Tokens]:
        """What the linears of the current block saw when it last ran."""
        return MappingProxyType(dict(self._tokens))

    def wanted(self, now: Pass) -> bool:
        """Every pass of which something is to be learnt."""
        return not now.replays

    def pass_starts(self, pl_module: BlockPass) -> None:
        """Hook the block of this epoch."""
        for linear in pl_module.stream.facts.linears[pl_module.index]:
            module = pl_module.block.get_submodule(linear.name)
            self._handles.append(module.register_forward_hook(self._keep(pl_module, linear)))

    def _keep(self, pl_module: BlockPass, linear: Linear) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            inputs = args[0]
            if inputs.ndim != 3:
                inputs, output = self._shaped(pl_module, inputs, output)
            self._tokens[linear] = Tokens(inputs, output)

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
        """Spare the batches to come the linear that ran last: nothing that is looked at depends on it."""
        collects = pl_module.now.collects and not pl_module.now.is_dense
        if self.outputs_read or not collects or not self._tokens or self._spared:
            return
        last = pl_module.block.get_submodule(list(self._tokens)[-1].name)
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
        self._reshaped = None
        if self._spared:
            self._spared.close()
            self._spared = None


def _zeros(linear: nn.Module) -> Callable[[Tensor], Tensor]:
    """What has the shape of the linear's output and costs nothing."""
    width = linear.get_parameter("weight").shape[0]
    return lambda inputs: inputs.new_zeros(*inputs.shape[:-1], width)
