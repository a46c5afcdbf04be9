"""A linear layer whose pruned weight stays compressed, and models full of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tamp_lightning.kernels import compiled
from tamp_lightning.kernels.form import Bitmask
from tamp_lightning.kernels.product import linear


class CompressedLinear(nn.Module):
    """`nn.Linear` with a fixed weight that is held as a `Bitmask`; the bias is a parameter as ever.

    The state dict has the expanded `weight`, so that what is saved is an ordinary checkpoint, and takes one.

    Args:
        weight: [o, c].
        bias: [o], or None.
    """

    values: Tensor
    mask: Tensor
    starts: Tensor
    scale_bits: Tensor | None
    like: Tensor
    _checked: bool

    def __init__(self, weight: Bitmask, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = weight.columns, weight.rows
        self.bias = bias
        self._take(weight)

    @property
    def form(self) -> Bitmask:
        """The weight as it is held; its parts are those of this layer, not copies."""
        if self.scale_bits is None:
            return Bitmask(self.values, self.mask, self.starts, self.in_features)
        scales = self.scale_bits.view(torch.bfloat16)
        return Bitmask(self.values, self.mask, self.starts, self.in_features, scales, self.like.dtype)

    @property
    def weight(self) -> Tensor:
        """The expanded weight [o, c], made anew each time."""
        return self.form.expand()

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., c] -> [..., o].

        Raises:
            ValueError: at the first call, and the first one on another device or in another dtype, if values and mask
                do not belong together; at any, if the inputs have another width.
        """
        if inputs.shape[-1] != self.in_features:
            raise ValueError(f"inputs have {inputs.shape[-1]} features, expected {self.in_features}")
        if torch.compiler.is_compiling():  # asked here: an operator's wrapper takes 10 microseconds a call
            self._check()
            return compiled.linear(inputs, self.form, self.bias)
        if not self._checked:
            self._check()
        return linear(inputs, self.form, self.bias)

    @torch.compiler.assume_constant_result
    def _check(self) -> bool:
        """Check what is held, once; while a function is compiled this runs at once and not in its graph."""
        if not self._checked:
            self.form.check()
            self._checked = True
        return True

    def extra_repr(self) -> str:
        """As `nn.Linear`, the share of weights that are kept, and how many bits whole numbers have."""
        form = self.form
        share = form.capacity / max(1, self.in_features * self.out_features)
        whole = "" if form.scales is None else f", values={form.values_name}"
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, kept={share:.3f}{whole}"

    def _take(self, weight: Bitmask) -> None:
        for name in ("values", "mask", "starts"):
            self.register_buffer(name, getattr(weight, name), persistent=False)
        # what casts a model would cast scales too: as integers they keep their bits, and `like` says the new dtype
        bits = None if weight.scales is None else weight.scales.view(torch.int16)
        self.register_buffer("scale_bits", bits, persistent=False)
        self.register_buffer("like", weight.values.new_empty(0, dtype=weight.dtype), persistent=False)
        self._checked = False

    def _apply(self, fn: Any, recurse: bool = True) -> CompressedLinear:
        self._checked = False
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # rest: local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        weight = state_dict.get(prefix + "weight")
        others = {key: value for key, value in state_dict.items() if key != prefix + "weight"}
        super()._load_from_state_dict(others, prefix, *rest)
        if weight is None:
            rest[2].append(prefix + "weight")
        elif weight.shape != (self.out_features, self.in_features):
            shape = [self.out_features, self.in_features]
            rest[4].append(f"{prefix}weight has shape {list(weight.shape)}, expected {shape}")
        else:
            self._take(Bitmask.of_dense(weight.to(self.like)))


def compress_linears(model: nn.Module, least: float = 0.3) -> int:
    """Hold the weights of all linears that are sparse enough in compressed form, in place.

    Args:
        model: pruned, with its zeros.
        least: share of zeros from which on a linear is compressed.

    Returns:
        How many were.
    """
    found = [(name, module) for name, module in model.named_modules() if type(module) is nn.Linear]
    tied = _tied(model)
    count = 0
    for name, module in found:
        if id(module.weight) in tied or float((module.weight == 0).float().mean()) < least:
            continue
        model.set_submodule(name, CompressedLinear(Bitmask.of_dense(module.weight.detach()), module.bias))
        count += 1
    return count


def _tied(model: nn.Module) -> set[int]:
    """Parameters that stand in more than one place."""
    seen, tied = set[int](), set[int]()
    for _, parameter in model.named_parameters(remove_duplicate=False):
        (tied if id(parameter) in seen else seen).add(id(parameter))
    return tied


@dataclass(frozen=True)
class Held:
    """What the compressed linears of a model take.

    Attributes:
        linears: how many.
        weights: of them, zeros too.
        nbytes: of values, masks, starts and scales.
        values: what they are, such as bfloat16 or int8; sorted, several joined by +.
    """

    linears: int
    weights: int
    nbytes: int
    values: str


def held_by(model: nn.Module) -> Held:
    """Count what the compressed linears of a model take."""
    forms = [module.form for module in model.modules() if isinstance(module, CompressedLinear)]
    names = sorted({form.values_name for form in forms})
    weights = sum(form.rows * form.columns for form in forms)
    return Held(len(forms), weights, sum(form.nbytes for form in forms), " + ".join(names))
