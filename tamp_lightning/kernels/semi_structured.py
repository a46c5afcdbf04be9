"""2:4 weights on a GPU's sparse units: which linears gain, by which algorithm, and the layer that takes their place."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tamp_lightning.errors import InputError
from tamp_lightning.files import write_json
from tamp_lightning.kernels.sparse_units import Units

FILE = "semi_structured.json"
"""Algorithms and times that were found, beside the weights."""
TOKENS = (512, 2048)
"""Inputs that algorithms are searched for; a product takes that of the nearest number below, or the first."""
GAIN = 1.05
"""How many times as fast as dense the product has to be, of so many inputs, for a linear not to stay dense."""
SIDE, STEP = 32, 8
"""Sides of a weight and numbers of inputs are filled up to multiples of these (inputs of a weight have to be one)."""


@dataclass
class Algorithms:
    """What was found for each shape on one device, in a file beside the model.

    Args:
        path: the file, which need not exist; what was found on another device or by another torch is not used.
        units: who is asked.
    """

    path: Path
    units: Units
    shapes: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """Shape of a weight -> number of inputs -> algorithm and seconds of either product."""

    def __post_init__(self) -> None:
        try:
            held = json.loads(self.path.read_text())
            if held["device"] == self.units.name:
                self.shapes = {shape: dict(found) for shape, found in held["shapes"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self.shapes = {}  # none, or of no use: it is found anew

    def of(self, packed: Tensor, weight: Tensor) -> dict[int, int]:
        """Algorithm by number of inputs, for a weight [o, c]; empty if the dense product is as fast."""
        shape = "x".join(map(str, weight.shape))
        if not _complete(self.shapes.get(shape)):
            self.shapes[shape] = {str(tokens): self._try(packed, weight, tokens) for tokens in TOKENS}
        found = self.shapes[shape]
        if max(found[str(tokens)]["dense"] / found[str(tokens)]["sparse"] for tokens in TOKENS) < GAIN:
            return {}
        return {tokens: int(found[str(tokens)]["algorithm"]) for tokens in TOKENS}

    def save(self) -> None:
        """Write the file; a folder that cannot be written to is left alone, and the next load searches again."""
        try:
            write_json(self.path, {"device": self.units.name, "shapes": self.shapes})
        except OSError:
            return

    def _try(self, packed: Tensor, weight: Tensor, tokens: int) -> dict[str, float]:
        inputs = torch.ones(tokens, weight.shape[1], dtype=weight.dtype, device=weight.device)
        algorithm = self.units.search(packed, inputs)
        sparse = self.units.seconds(lambda: self.units.multiply(packed, inputs, None, algorithm))
        dense = self.units.seconds(lambda: functional.linear(inputs, weight))
        return {"algorithm": algorithm, "dense": dense, "sparse": sparse}


def _complete(found: Any) -> bool:
    try:
        numbers = [found[str(tokens)][name] for tokens in TOKENS for name in ("algorithm", "dense", "sparse")]
        return all(float(number) >= 0 for number in numbers) and all(numbers[2::3])
    except (KeyError, TypeError, ValueError):
        return False


class SemiStructuredLinear(nn.Module):
    """`nn.Linear` with a fixed 2:4 weight that the sparse units hold; its state dict has the dense weight.

    Args:
        packed: from `Units.compress`, of the weight filled up with rows of zeros.
        shape: of the weight, (o, c).
        algorithms: by number of inputs.
        bias: [o], or None.
        units: who multiplies.
    """

    packed: Tensor

    def __init__(
        self,
        packed: Tensor,
        shape: tuple[int, int],
        algorithms: dict[int, int],
        bias: nn.Parameter | None,
        units: Units,
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = shape
        self.algorithms, self.units, self.bias = algorithms, units, bias
        self.register_buffer("packed", packed, persistent=False)

    @property
    def weight(self) -> Tensor:
        """The dense weight [o, c]: the product with ones on a diagonal, in which nothing is rounded."""
        ones = torch.eye(self.in_features, dtype=torch.bfloat16, device=self.packed.device)
        algorithm = self.algorithms[min(self.algorithms)]
        return self.units.multiply(self.packed, ones, None, algorithm)[:, : self.out_features].t().contiguous()

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., c] -> [..., o]; no gradient reaches the weight or passes through."""
        flat = inputs.reshape(-1, inputs.shape[-1])
        count = len(flat)
        padded = functional.pad(flat, (0, 0, 0, -count % STEP)) if count else flat
        if not count:
            return inputs.new_empty(*inputs.shape[:-1], self.out_features)
        below = [tokens for tokens in self.algorithms if tokens <= count]
        algorithm = self.algorithms[max(below, default=min(self.algorithms))]
        out = self.units.multiply(self.packed, padded, None, algorithm)[:count, : self.out_features]
        out = out if self.bias is None else out + self.bias
        return out.reshape(*inputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """As `nn.Linear`."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, 2:4"

    def _apply(self, fn: Any, recurse: bool = True) -> SemiStructuredLinear:
        moved = fn(self.packed.new_empty(0))
        if moved.dtype != self.packed.dtype or moved.device != self.packed.device:
            raise InputError(
                "a linear that sparse units hold stays in bfloat16 where it is: load the model anew instead"
            )
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight


def is_two_of_four(weight: Tensor) -> bool:
    """Whether every 4 consecutive columns of a weight [o, c] hold at most 2 that are not zero."""
    return weight.shape[1] % 4 == 0 and bool((weight.unflatten(1, (-1, 4)).count_nonzero(-1) <= 2).all())


def speed_up_linears(model: nn.Module, algorithms: Algorithms) -> dict[str, int]:
    """Give the linears with 2:4 weights that gain to the sparse units, in place.

    Args:
        model: in bfloat16, on the device of the units.
        algorithms: what is known; what is found is added and saved.

    Returns:
        How many linears are `sparse`, and how many with 2:4 weights stay `dense`.

    Raises:
        InputError: no linear has 2:4 weights, or theirs are not in bfloat16.
    """
    found = [(name, module) for name, module in model.named_modules() if type(module) is nn.Linear]
    found = [(name, module) for name, module in found if _fits(module.weight)]
    if not found:
        raise InputError(
            "runtime is 'semi_structured', but no linear keeps at most 2 of every 4 weights: prune with 2:4"
        )
    count = {"sparse": 0, "dense": 0}
    for name, module in found:
        weight = module.weight.detach()
        packed = algorithms.units.compress(functional.pad(weight, (0, 0, 0, -len(weight) % SIDE)))
        chosen = algorithms.of(packed, weight)
        count["sparse" if chosen else "dense"] += 1
        if chosen:
            shape = module.out_features, module.in_features
            model.set_submodule(name, SemiStructuredLinear(packed, shape, chosen, module.bias, algorithms.units))
    algorithms.save()
    return count


def _fits(weight: Tensor) -> bool:
    if weight.shape[1] % SIDE or not is_two_of_four(weight) or not bool(weight.any()):
        return False
    if weight.dtype != torch.bfloat16:
        raise InputError(
            f"runtime is 'semi_structured', which takes bfloat16, not {weight.dtype}: load with dtype=torch.bfloat16 "
            "(cuSPARSELt crashes in float16 on recent GPUs)"
        )
    return True
