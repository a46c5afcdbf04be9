"""What transformers does not promise to keep about models, used here and nowhere else.

Attention functions, the name of a model's cache of earlier tokens, and the classes that auto classes know. Checkpoints
have their own module, `compat.loading`. tests/compat names what a release moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers.configuration_utils import SubConfigSpec
from transformers.image_processing_utils import select_best_resolution
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import CausalLMOutputWithPast

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = [
    "CACHE",
    "CACHE_NAMES",
    "SubConfigSpec",
    "registered_class",
    "sdpa_attention_forward",
    "sdpa_mask",
    "select_best_resolution",
]

CACHE_NAMES = ("cache", "past_key_values")
"""Names under which a model takes and gives the cache of earlier tokens: new (from 5.24 on) and old."""
CACHE = next(name for name in CACHE_NAMES if name in CausalLMOutputWithPast.__dataclass_fields__)
"""The one that the installed release uses."""

INTERNALS: dict[str, str] = {
    "transformers.models.auto.auto_factory._BaseAutoModelClass._model_mapping": "classes that others registered",
}
"""Attributes used below, and what for; imported names fail by themselves."""


def registered_class(auto: type[Any], config: PreTrainedConfig) -> type[Any] | None:
    """Class that an auto class knows for a config, if it is one class."""
    found = auto._model_mapping.get(type(config), None)
    return found if isinstance(found, type) else None
