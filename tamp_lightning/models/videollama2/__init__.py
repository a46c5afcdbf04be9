"""VideoLLaMA2.1-7B-AV as a transformers model; importing this registers it with the Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor

from tamp_lightning.compat.loading import WeightRenaming, register_checkpoint_conversion_mapping
from tamp_lightning.models.videollama2.configuration import BeatsConfig, Videollama2Config
from tamp_lightning.models.videollama2.modeling import Videollama2Model, Videollama2Qwen2ForCausalLM
from tamp_lightning.models.videollama2.processor import Videollama2Processor

__all__ = [
    "BeatsConfig",
    "Videollama2Config",
    "Videollama2Model",
    "Videollama2Processor",
    "Videollama2Qwen2ForCausalLM",
]


def _register() -> None:
    AutoConfig.register(Videollama2Config.model_type, Videollama2Config, exist_ok=True)
    AutoModel.register(Videollama2Config, Videollama2Model, exist_ok=True)
    AutoModelForCausalLM.register(Videollama2Config, Videollama2Qwen2ForCausalLM, exist_ok=True)
    AutoProcessor.register(Videollama2Config, Videollama2Processor, exist_ok=True)
    # On disk the language model has no level of its own; SigLIP's older level is transformers' own business.
    others = "|".join(("language_model", "vision_tower", "mm_projector", "audio_tower"))
    renaming = WeightRenaming(rf"^model\.(?!{others})", "model.language_model.")
    register_checkpoint_conversion_mapping(Videollama2Config.model_type, [renaming], overwrite=True)


_register()
