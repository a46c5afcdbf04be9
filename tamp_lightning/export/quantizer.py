"""What transformers needs to load the bitmask form: every weight is expanded when its turn comes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tamp_lightning.compat.loading import (
    ConversionOps,
    HfQuantizer,
    QuantizationConfigMixin,
    WeightConverter,
    WeightTransform,
    keep_conversions,
    register_quantizer,
)
from tamp_lightning.export.codec import decode
from tamp_lightning.export.form import CODES, METHOD, check_section, verify

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class BitmaskConfig(QuantizationConfigMixin):
    """The `quantization_config` section of config.json.

    Args:
        version: of the layout.
        files: sha256 of every weight file by its name.
        **section: the rest of the section.

    Raises:
        InputError: another version, or a damaged section.
    """

    dequantize = True
    """What is loaded is an ordinary dense model, which saves as such."""

    def __init__(self, version: int | None = None, files: dict[str, str] | None = None, **section: Any) -> None:
        self.quant_method = METHOD  # type: ignore[assignment]
        self.version = version
        self.files = check_section({"version": version, "files": files})


class Expand(ConversionOps):
    """Values and the code of where they stand -> the weight; a weight without a code is passed on.

    Attributes:
        dtype: what the weight has to become; None = that of the model's parameter.
    """

    def __init__(self) -> None:
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
        if kind is not None:
            weight = expand(weight, kind, given[f"weight{CODES[kind]}"], own.shape)
        if weight.is_floating_point():
            weight = weight.to(self.dtype or own.dtype)
        return {target_patterns[0]: weight}


def expand(values: Tensor, kind: str, code: Tensor, shape: torch.Size) -> Tensor:
    """The weight [o, c], on the CPU, of its values [kept] and code [bytes].

    Raises:
        InputError: they do not belong together.
    """
    bits: np.ndarray = values.cpu().view(_INTEGERS[values.element_size()]).numpy()
    dense = decode(bits, kind, code.cpu().numpy(), shape.numel())
    return torch.from_numpy(dense).view(values.dtype).view(shape)


class BitmaskQuantizer(HfQuantizer):
    """Loads the bitmask form as the dense model it stands for."""

    quantization_config: BitmaskConfig
    _own: Sequence[WeightTransform] = ()
    """The model's own conversions, without ours."""

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> PreTrainedModel:
        for file in checkpoint_files or []:
            verify(Path(file), self.quantization_config.files.get(Path(file).name))
        return model

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        # transformers would undo on saving what it did on loading; what is saved is the dense model
        keep_conversions(model, self._own)
        return model

    def update_weight_conversions(
        self, weight_conversions: list[WeightTransform], model: PreTrainedModel | None = None
    ) -> list[WeightTransform]:
        """The model's own, which never meet an encoded weight, and ours.

        On the CPU: what is sent to an accelerator is the weight, never a part of it besides.
        """
        self._own = weight_conversions
        # the longer names first: the first one that matches a key is taken
        sources = [*(f"weight{ending}" for ending in CODES.values()), "weight"]
        return [*weight_conversions, WeightConverter(sources, ["weight"], [Expand()], force_cpu=True)]

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
