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
from tamp_lightning.export.codec import BITMASK, decode, kept_of
from tamp_lightning.export.form import CODES, METHOD, check_section, verify
from tamp_lightning.kernels.form import Bitmask
from tamp_lightning.kernels.linear import CompressedLinear, compress_linears

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class BitmaskConfig(QuantizationConfigMixin):
    """The `quantization_config` section of config.json, and what `from_pretrained` is given to load it otherwise.

    Args:
        version: of the layout.
        files: sha256 of every weight file by its name.
        keep_compressed: hold the weights of linears in memory as they are on disk, see docs/export.md.
        **section: the rest of the section.
    """

    dequantize = True
    """What is loaded saves as the dense model, its linears compressed or not."""

    def __init__(
        self,
        version: int | None = None,
        files: dict[str, str] | None = None,
        keep_compressed: bool = False,
        **section: Any,
    ) -> None:
        self.quant_method = METHOD  # type: ignore[assignment]
        self.version = version
        self.files = files
        self.keep_compressed = keep_compressed

    def get_loading_attributes(self) -> dict[str, Any]:
        """What an argument of `from_pretrained` may change."""
        return {"keep_compressed": self.keep_compressed}


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
        kind = next((kind for kind, ending in CODES.items() if f"weight{ending}" in given), None)
        dtype = self.dtype or own.dtype
        name = full_layer_name.removesuffix(".weight")
        if kind is not None and self.kept is not None and type(model.get_submodule(name)) is nn.Linear:
            code = given[f"weight{CODES[kind]}"]
            self.kept[name] = compressed(weight.to(dtype), kind, code, (own.shape[0], own.shape[1]))
            return {target_patterns[0]: weight.new_empty(0, dtype=dtype)}
        if kind is not None:
            weight = expand(weight, kind, given[f"weight{CODES[kind]}"], own.shape)
        if weight.is_floating_point():
            weight = weight.to(dtype)
        return {target_patterns[0]: weight}


def expand(values: Tensor, kind: str, code: Tensor, shape: torch.Size) -> Tensor:
    """The weight [o, c], on the CPU, of its values [kept] and code [bytes].

    Raises:
        InputError: they do not belong together.
    """
    bits: np.ndarray = values.cpu().view(_INTEGERS[values.element_size()]).numpy()
    dense = decode(bits, kind, code.cpu().numpy(), shape.numel())
    return torch.from_numpy(dense).view(values.dtype).view(shape)


def compressed(values: Tensor, kind: str, code: Tensor, shape: tuple[int, int]) -> Bitmask:
    """The weight [o, c] as kernels take it, on the device of its values [kept].

    Raises:
        ValueError: values and code [bytes] do not belong together.
    """
    if kind == BITMASK:
        return Bitmask.of_packed(values, code.to(values.device), shape)
    kept = torch.from_numpy(kept_of(kind, code.cpu().numpy(), shape[0] * shape[1]))
    return Bitmask.of_mask(values, kept.view(shape).to(values.device))


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

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> PreTrainedModel:
        for file in (checkpoint_files or []) if self.pre_quantized else []:
            verify(Path(file), self._files.get(Path(file).name))
        return model

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        if not self.pre_quantized:
            self.remove_quantization_config(model)
            if self._kept is not None:
                compress_linears(model)
            return model
        for name, weight in (self._kept or {}).items():
            model.set_submodule(name, CompressedLinear(weight, cast("nn.Linear", model.get_submodule(name)).bias))
        # transformers would undo on saving what it did on loading; what is saved is the dense model
        keep_conversions(model, self._own)
        return model

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
        sources = [*(f"weight{ending}" for ending in CODES.values()), "weight"]
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
