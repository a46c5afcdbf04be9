"""What transformers needs to load the bitmask form: each weight is expanded when its turn comes, or kept as it is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from tamp_lightning.compat.experts import are_experts
from tamp_lightning.compat.loading import (
    HfQuantizer,
    QuantizationConfigMixin,
    WeightConverter,
    WeightTransform,
    expect_keys,
    keep_conversions,
    register_quantizer,
)
from tamp_lightning.errors import InputError
from tamp_lightning.export.form import METHOD, check_section, verify
from tamp_lightning.export.loading import PARTS, Expanding, Kept, Parts
from tamp_lightning.kernels import sparse_units
from tamp_lightning.kernels.linear import CompressedLinear, compress_linears
from tamp_lightning.kernels.semi_structured import FILE, Algorithms, speed_up_linears

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SEMI_STRUCTURED = "semi_structured"


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


class BitmaskQuantizer(HfQuantizer):
    """Loads the bitmask form as the dense model it stands for, or with linears that stay compressed.

    Raises:
        ValueError: the layout is of another version, or its section damaged.
    """

    quantization_config: BitmaskConfig
    _conversions: Sequence[tuple[WeightTransform, WeightTransform]] = ()
    """The model's own, and what was used in their place."""

    def __init__(self, quantization_config: BitmaskConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self._files = check_section(vars(quantization_config)) if self.pre_quantized else {}
        self._parts: Parts | None = None
        self._kept: Kept | None = None
        if quantization_config.runtime:
            self._units = sparse_units.CuSparseLt()  # refused before anything is loaded

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> PreTrainedModel:
        files = [Path(file) for file in checkpoint_files or []]
        self._folder = files[0].parent if files else Path()
        if not self.pre_quantized:
            return model
        for file in files:
            verify(file, self._files.get(file.name))
        self._parts = Parts(files, model.state_dict())
        if self.quantization_config.keep_compressed:
            modules = model.named_modules()
            self._kept = Kept(f"{name}.weight" for name, module in modules if type(module) is nn.Linear)
        expect_keys(model, PARTS)
        return model

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        if self.quantization_config.keep_compressed:
            _warn_of_experts(model)
        if not self.pre_quantized:
            self.remove_quantization_config(model)
            if self.quantization_config.keep_compressed:
                compress_linears(model)
            self._speed_up(model)
            return model
        for name, weight in (self._kept or {}).items():
            name = name.removesuffix(".weight")
            model.set_submodule(name, CompressedLinear(weight, cast("nn.Linear", model.get_submodule(name)).bias))
        # transformers would undo on saving what it did on loading; what is saved is the dense model
        keep_conversions(model, self._conversions)
        self._parts, self._conversions = None, ()  # with them, files are closed
        self._speed_up(model)
        return model

    def _speed_up(self, model: PreTrainedModel) -> None:
        if self.quantization_config.runtime:
            speed_up_linears(model, Algorithms(self._folder / FILE, self._units))

    def param_needs_quantization(self, model: PreTrainedModel, param_name: str, **kwargs: Any) -> bool:
        """Whether a weight stays compressed, so that the linear it is of may be empty until it is replaced."""
        return self._kept is not None and param_name in self._kept

    def param_element_size(self, model: PreTrainedModel, param_name: str, param: Tensor) -> float:
        """Nothing is reserved ahead for a model that never becomes dense."""
        if self.quantization_config.keep_compressed:
            return 0.0
        return super().param_element_size(model, param_name, param)

    def update_weight_conversions(
        self, weight_conversions: list[WeightTransform], model: PreTrainedModel | None = None
    ) -> list[WeightTransform]:
        """The model's own, given expanded weights, and one for all that these leave.

        Expanded on the CPU: what is sent to an accelerator is the weight, never a part of it besides.
        """
        if (parts := self._parts) is None:
            return list(weight_conversions)
        self._conversions = [
            (own, Expanding.of(own, parts) if isinstance(own, WeightConverter) else own) for own in weight_conversions
        ]
        return [*(ours for _, ours in self._conversions), Expanding.of_all(parts, self._kept)]

    def get_new_dtype(self, converter: WeightTransform, param: Any, dtype: torch.dtype | None) -> torch.dtype | None:
        """Nothing is cast before it is expanded: a tensor that is not cast is a view of the file, without cost."""
        if isinstance(converter, Expanding):
            converter.dtype = dtype
            return None
        return super().get_new_dtype(converter, param, dtype)

    def is_serializable(self) -> bool:
        """What is loaded is dense."""
        return True

    @property
    def is_trainable(self) -> bool:
        """What is loaded is dense."""
        return True


def _warn_of_experts(model: PreTrainedModel) -> None:
    """Say that experts are whole in memory, where somebody asked for compressed weights."""
    layers = [module for module in model.modules() if are_experts(module)]
    if layers:
        size = sum(value.nbytes for layer in layers for value in layer.parameters())
        warnings.warn(
            f"keep_compressed holds linears compressed; the experts of this model are expanded ({size / 1e9:.2f} GB)",
            stacklevel=2,
        )


register_quantizer(METHOD, BitmaskConfig, BitmaskQuantizer)
