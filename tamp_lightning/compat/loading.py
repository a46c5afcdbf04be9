"""What transformers does not promise to keep about loading and saving checkpoints, used here and nowhere else.

How a checkpoint's tensors become a model's (conversions), which of them keep float32, and how a quantiser joins in.
This module can be imported in the middle of transformers' own import, as `export.register` does; what needs more of
transformers stands in `compat.modeling`. `INTERNALS` lists the attributes with what they are needed for, and
tests/compat names what a release moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers.conversion_mapping import get_model_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.core_model_loading import (
    ConversionOps,
    WeightConverter,
    WeightRenaming,
    WeightTransform,
    build_glob_alternation,
    convert_and_load_state_dict_in_model,
    dot_natural_key,
    rename_source_key,
    revert_weight_conversion,
)
from transformers.modeling_utils import LoadStateDictConfig
from transformers.quantizers import auto
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from transformers.quantizers.base import HfQuantizer
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.loading_report import LoadStateDictInfo
from transformers.utils.quantization_config import QuantizationConfigMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from transformers import PreTrainedModel

__all__ = [
    "SAFE_WEIGHTS_INDEX_NAME",
    "SAFE_WEIGHTS_NAME",
    "ConversionOps",
    "HfQuantizer",
    "LoadStateDictConfig",
    "LoadStateDictInfo",
    "QuantizationConfigMixin",
    "WeightConverter",
    "WeightRenaming",
    "WeightTransform",
    "convert_and_load_state_dict_in_model",
    "dot_natural_key",
    "drop_missing_by_design",
    "dtype_plan",
    "expect_keys",
    "float32_names",
    "get_model_conversion_mapping",
    "keep_conversions",
    "register_checkpoint_conversion_mapping",
    "register_quantizer",
    "rename_source_key",
    "revert_weight_conversion",
]

INTERNALS: dict[str, str] = {
    "transformers.modeling_utils.PreTrainedModel._get_dtype_plan": "which tensors a model keeps in float32",
    "transformers.modeling_utils.PreTrainedModel._adjust_missing_and_unexpected_keys": "what a checkpoint may lack",
    "transformers.modeling_utils.PreTrainedModel._keys_to_ignore_on_load_unexpected": "codes and scales beside weights",
    "transformers.core_model_loading.WeightTransform.was_used": "saving under the names that were loaded",
    "transformers.core_model_loading.WeightTransform.add_tensor": "expanding weights before they are converted",
    "transformers.core_model_loading.WeightTransform._original_source_patterns": "a model's conversions, of our class",
    "transformers.core_model_loading.WeightTransform._original_target_patterns": "likewise",
    "transformers.core_model_loading.WeightTransform.scope_prefix": "likewise",
    "transformers.core_model_loading.WeightTransform.base_model_prefix": "likewise",
    "transformers.quantizers.auto.LOADING_ATTRIBUTES_CONFIG_TYPES": "asking for compressed linears at load",
    "transformers.quantizers.base.HfQuantizer.param_needs_quantization": "leaving a linear empty until it is replaced",
    "transformers.quantizers.base.HfQuantizer.param_element_size": "reserving no memory for dense weights",
    "transformers.quantizers.base.HfQuantizer.update_weight_conversions": "expanding weights while they load",
    "transformers.quantizers.base.HfQuantizer._process_model_before_weight_loading": "checking weight files",
    "transformers.quantizers.base.HfQuantizer._process_model_after_weight_loading": "saving what was expanded as dense",
}
"""Attributes used below or overridden in `export.quantizer`, and what for; imported names fail by themselves."""


def dtype_plan(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """Patterns of tensor names -> the dtype they keep although the model is loaded in ``dtype``."""
    return model._get_dtype_plan(dtype)


def float32_names(model: PreTrainedModel, dtype: torch.dtype | None) -> Callable[[str], bool]:
    """Whether a tensor, by its name, stays in float32 when the model is loaded in ``dtype``."""
    plan = dtype_plan(model, dtype) if dtype is not None else {}
    pattern = build_glob_alternation(list(plan))[0] if plan else None
    return lambda name: pattern is not None and pattern.search(name) is not None


def drop_missing_by_design(model: PreTrainedModel, info: LoadStateDictInfo) -> None:
    """Take out of ``info``, in place, the missing and unexpected keys that ``model`` declares to be no fault."""
    model._adjust_missing_and_unexpected_keys(info)


def keep_conversions(model: PreTrainedModel, conversions: Sequence[tuple[WeightTransform, WeightTransform]]) -> None:
    """Let `save_pretrained` undo conversions that a checkpoint met on loading, and no others.

    Releases before 5.24 keep a dequantised model's conversions, its dequantisation among them; later ones forget all.

    Args:
        model: the loaded model.
        conversions: the model's own, each with what was used in its place.
    """
    model._weight_conversions = [own for own, used in conversions if used.was_used()]  # type: ignore[assignment]


def expect_keys(model: PreTrainedModel, patterns: Iterable[str]) -> None:
    """Let the checkpoint that ``model`` is loaded from hold keys that one of ``patterns`` finds."""
    model._keys_to_ignore_on_load_unexpected = {*(model._keys_to_ignore_on_load_unexpected or ()), *patterns}


def register_quantizer(method: str, config: type[QuantizationConfigMixin], quantizer: type[HfQuantizer]) -> None:
    """What transformers' own decorators do, but a second time too: they refuse a module that is imported anew.

    The loading attributes of a ``quantization_config=`` argument are heeded only for configs that stand in a list.
    """
    AUTO_QUANTIZATION_CONFIG_MAPPING[method] = config
    AUTO_QUANTIZER_MAPPING[method] = quantizer
    others = (c for c in auto.LOADING_ATTRIBUTES_CONFIG_TYPES if c.__name__ != config.__name__)
    auto.LOADING_ATTRIBUTES_CONFIG_TYPES = (*others, config)  # type: ignore[assignment]
