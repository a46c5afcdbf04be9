"""What transformers needs to load the bitmask form: each weight is expanded when its turn comes, or kept as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from tamp_lightning.compat.loading import (
    ConversionOps,
    HfQuantizer,
    QuantizationConfigMixin,
    WeightConverter,
    WeightTransform,
    keep_conversions,
    register_quantizer,
)
from tamp_lightning.errors import InputError
from tamp_lightning.export.codec import BITMASK, kept_of
from tamp_lightning.export.form import CODES, FLOATS, METHOD, SCALES, check_section, verify
from tamp_lightning.export.values import Stored
from tamp_lightning.kernels import sparse_units
from tamp_lightning.kernels.form import Bitmask
from tamp_lightning.kernels.linear import CompressedLinear, compress_linears
from tamp_lightning.kernels.semi_structured import FILE, Algorithms, speed_up_linears

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SEMI_STRUCTURED = "semi_structured"
_INTEGER_NAMES = {torch.int8: "I8", torch.uint8: "U8"}
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class BitmaskConfig(QuantizationConfigMixin):
    """The `quantization_config` section of config.json, and what `from_pretrained` is given to load it otherwise.

    Args:
        version: of the layout.
        files: sha256 of every weight file by its name.
        keep_compressed: hold the weights of linears in memory as they are on disk, see docs/export.md.
        values: what they were rounded to, `int8` or `int4`; None = nothing.
        runtime: `semi_structured` gives 2:4 weights to the sparse units of the GPU that the model is loaded on; None.
        **section: the rest of the section.
    """

    dequantize = True
    """What is loaded saves as the dense model, its linears compressed or not."""

    def __init__(
        self,
        version: int | None = None,
        files: dict[str, str] | None = None,
        keep_compressed: bool = False,
        values: str | None = None,
        runtime: str | None = None,
        **section: Any,
    ) -> None:
        self.quant_method = METHOD  # type: ignore[assignment]
        self.version = version
        self.files = files
        self.keep_compressed = keep_compressed
        self.values = values
        self.runtime = runtime
        if runtime not in (None, SEMI_STRUCTURED):
            raise InputError(f"runtime is {runtime!r}, expected {SEMI_STRUCTURED!r} or nothing")
        if runtime and keep_compressed:
            raise InputError(
                f"keep_compressed does not go with runtime {runtime!r}: sparse units hold weights their way"
            )

    def get_loading_attributes(self) -> dict[str, Any]:
        """What an argument of `from_pretrained` may change."""
        return {"keep_compressed": self.keep_compressed, "runtime": self.runtime}


class Kept(dict[str, Bitmask]):
    """Weights by full name of their linear that stay compressed; copies of a converter share it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Kept:
        return self


class Expand(ConversionOps):
    """Values and the code of where they stand -> the weight; a weight without a code is passed on.

    Args:
        kept: where weights of linears go that stay compressed, None = all are expanded; the model then gets nothing.

    Attributes:
        dtype: what the weight has to become; None = that of the model's parameter.
    """

    def __init__(self, kept: Kept | None = None) -> None:
        self.kept = kept
        self.dtype: torch.dtype | None = None

    @torch.no_grad()
    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        *,
        full_layer_name: str,
        model: PreTrainedModel,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """The weight under the first target pattern.

        Raises:
            InputError: values and code do not fit the model's weight.
        """
        given = {key: value[0] if isinstance(value, list) else value for key, value in input_dict.items()}
        own = model.get_parameter_or_buffer(full_layer_name)
        weight = given["weight"]
        found = next((kind for kind, ending in CODES.items() if f"weight{ending}" in given), None)
        kind = None if found is None else (found, given[f"weight{CODES[found]}"])
        scales = given.get(f"weight{SCALES}")
        dtype = self.dtype or own.dtype
        name = full_layer_name.removesuffix(".weight")
        if kind is None and scales is None:
            return {target_patterns[0]: weight.to(dtype) if weight.is_floating_point() else weight}
        if self.kept is not None and type(model.get_submodule(name)) is nn.Linear:
            values = weight.to(dtype) if scales is None else weight
            self.kept[name] = compressed(values, kind, (own.shape[0], own.shape[1]), scales, dtype)
            return {target_patterns[0]: weight.new_empty(0, dtype=dtype)}
        return {target_patterns[0]: expand(weight, kind, own.shape, scales, dtype)}


def expand(
    values: Tensor, kind: tuple[str, Tensor] | None, shape: torch.Size, scales: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The weight [o, c], on the CPU, of its values, kind and code [bytes] of where they stand, and scales.

    Raises:
        InputError: they do not belong together.
    """
    wide = values.dtype if scales is None else dtype
    parts = Stored(
        _bits(values),
        _INTEGER_NAMES.get(values.dtype, ""),
        kind and kind[0],
        kind and kind[1].cpu().numpy(),
        None if scales is None else _bits(scales),
        tuple(shape),
        next(name for name, known in FLOATS.items() if known == wide),
    )
    return parts.restore().to(dtype)


def compressed(
    values: Tensor,
    kind: tuple[str, Tensor] | None,
    shape: tuple[int, int],
    scales: Tensor | None,
    dtype: torch.dtype,
) -> Bitmask:
    """The weight [o, c] as kernels take it, on the device of its values; one without zeros gets a mask of ones.

    Raises:
        ValueError: values, code [bytes] and scales do not belong together.
    """
    wide = None if scales is None else dtype
    if scales is not None:
        values, scales = values.flatten(), scales.to(values.device)
    if kind is None:
        return Bitmask.of_mask(values, torch.ones(shape, dtype=torch.bool, device=values.device), scales, wide)
    name, code = kind
    if name == BITMASK:
        return Bitmask.of_packed(values, code.to(values.device), shape, scales, wide)
    kept = torch.from_numpy(kept_of(name, code.cpu().numpy(), shape[0] * shape[1]))
    return Bitmask.of_mask(values, kept.view(shape).to(values.device), scales, wide)


def _bits(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().view(_INTEGERS[tensor.element_size()]).numpy()


class BitmaskQuantizer(HfQuantizer):
    """Loads the bitmask form as the dense model it stands for, or with linears that stay compressed.

    Raises:
        ValueError: the layout is of another version, or its section damaged.
    """

    quantization_config: BitmaskConfig
    _own: Sequence[WeightTransform] = ()
    """The model's own conversions, without ours."""

    def __init__(self, quantization_config: BitmaskConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self._files = check_section(vars(quantization_config)) if self.pre_quantized else {}
        self._kept = Kept() if quantization_config.keep_compressed else None
        if quantization_config.runtime:
            self._units = sparse_units.CuSparseLt()  # refused before anything is loaded

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> PreTrainedModel:
        self._folder = Path(checkpoint_files[0]).parent if checkpoint_files else Path()
        for file in (checkpoint_files or []) if self.pre_quantized else []:
            verify(Path(file), self._files.get(Path(file).name))
        return model

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        if not self.pre_quantized:
            self.remove_quantization_config(model)
            if self._kept is not None:
                compress_linears(model)
            self._speed_up(model)
            return model
        for name, weight in (self._kept or {}).items():
            model.set_submodule(name, CompressedLinear(weight, cast("nn.Linear", model.get_submodule(name)).bias))
        # transformers would undo on saving what it did on loading; what is saved is the dense model
        keep_conversions(model, self._own)
        self._speed_up(model)
        return model

    def _speed_up(self, model: PreTrainedModel) -> None:
        if self.quantization_config.runtime:
            speed_up_linears(model, Algorithms(self._folder / FILE, self._units))

    def param_needs_quantization(self, model: PreTrainedModel, param_name: str, **kwargs: Any) -> bool:
        """Whether a weight stays compressed, so that the linear it is of may be empty until it is replaced."""
        return self._kept is not None and param_name.removesuffix(".weight") in self._kept

    def param_element_size(self, model: PreTrainedModel, param_name: str, param: Tensor) -> float:
        """Nothing is reserved ahead for a model that never becomes dense."""
        return 0.0 if self._kept is not None else super().param_element_size(model, param_name, param)

    def update_weight_conversions(
        self, weight_conversions: list[WeightTransform], model: PreTrainedModel | None = None
    ) -> list[WeightTransform]:
        """The model's own, which never meet an encoded weight, and ours.

        Expanded on the CPU: what is sent to an accelerator is the weight, never a part of it besides.
        """
        self._own = weight_conversions
        if not self.pre_quantized:
            return list(weight_conversions)
        # the longer names first: the first one that matches a key is taken
        sources = [*(f"weight{ending}" for ending in (*CODES.values(), SCALES)), "weight"]
        ours = WeightConverter(sources, ["weight"], [Expand(self._kept)], force_cpu=self._kept is None)
        return [*weight_conversions, ours]

    def get_new_dtype(self, converter: WeightTransform, param: Any, dtype: torch.dtype | None) -> torch.dtype | None:
        """Nothing is cast before it is expanded: a tensor that is not cast is a view of the file, without cost."""
        for operation in getattr(converter, "operations", ()):
            if isinstance(operation, Expand):
                operation.dtype = dtype
                return None
        return super().get_new_dtype(converter, param, dtype)

    def is_serializable(self) -> bool:
        """What is loaded is dense."""
        return True

    @property
    def is_trainable(self) -> bool:
        """What is loaded is dense."""
        return True


register_quantizer(METHOD, BitmaskConfig, BitmaskQuantizer)
