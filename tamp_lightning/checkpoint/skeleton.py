"""The model without its decoder blocks: built on the meta device, filled by transformers' own loader."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
import transformers
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from tamp_lightning.checkpoint.adapter import load_port
from tamp_lightning.checkpoint.names import KeyMap
from tamp_lightning.checkpoint.reader import CheckpointReader, read_json
from tamp_lightning.compat.loading import (
    LoadStateDictConfig,
    convert_and_load_state_dict_in_model,
    dtype_plan,
    float32_names,
    get_model_conversion_mapping,
)
from tamp_lightning.compat.modeling import registered_class
from tamp_lightning.errors import InputError

_AUTO_CLASSES = (
    transformers.AutoModelForCausalLM,
    transformers.AutoModelForImageTextToText,
    transformers.AutoModelForMultimodalLM,
    AutoModel,
)


def build_skeleton(reader: CheckpointReader, dtype: torch.dtype | None) -> PreTrainedModel:
    """Build the checkpoint's model with parameters on the meta device and real buffers.

    Args:
        reader: the checkpoint.
        dtype: dtype to compute in; None = the one of its config, or else of its weights.

    Raises:
        InputError: quantised checkpoint, or an architecture that needs code from outside of transformers.
    """
    config = _read_config(reader.folder)
    dtype = dtype or _as_dtype(getattr(config, "dtype", None)) or reader.float_dtype()
    with init_empty_weights(include_buffers=False):
        model = model_class(config)._from_config(config, dtype=dtype)
    return model.eval().requires_grad_(False)


def load_skeleton(model: PreTrainedModel, reader: CheckpointReader, keys: KeyMap, device: torch.device) -> None:
    """Load everything but the decoder blocks into ``model``, in place, and tie what is tied.

    Raises:
        InputError: a tensor cannot be converted.
    """
    load_converted(model, reader, keys.others, device)
    model.tie_weights(missing_keys=set(keys.missing), recompute_mapping=False)
    for module in model.modules():
        for name, buffer in module._buffers.items():
            module._buffers[name] = buffer if buffer is None else buffer.to(device)
    model.requires_grad_(False)


def load_converted(
    model: PreTrainedModel,
    reader: CheckpointReader,
    keys: Sequence[str],
    device: torch.device,
    elsewhere: Mapping[str, Path] | None = None,
) -> None:
    """Load into ``model``, in place, what transformers makes of the tensors under ``keys``.

    Args:
        model: the skeleton.
        reader: the checkpoint.
        keys: all that go into a tensor, or none.
        device: where they go.
        elsewhere: key -> another safetensors file to take it from.

    Raises:
        InputError: a tensor cannot be converted.
    """
    dtype = _as_dtype(model.config.dtype)
    assert dtype is not None  # set when the skeleton was built
    config = LoadStateDictConfig(
        dtype=dtype,
        dtype_plan=dtype_plan(model, dtype),
        weight_mapping=get_model_conversion_mapping(model),  # type: ignore[arg-type]
        device_map={"": device},
    )
    with ExitStack() as stack:
        stack.enter_context(_no_progress_bar())
        slices = reader.slices(keys, stack, elsewhere)
        info, _ = convert_and_load_state_dict_in_model(model, slices, config)
    faults = [
        *info.conversion_errors.values(),
        *info.error_msgs,
        *(f"shape of {key[0]}" for key in info.mismatched_keys),
    ]
    if faults:
        raise InputError(f"{reader.folder} cannot be loaded: {' '.join(str(faults[0]).split())}")


def compute_dtypes(model: PreTrainedModel) -> dict[str, torch.dtype]:
    """Dtype in which ``from_pretrained`` would hold each tensor: some models keep a few in float32."""
    stays_float32 = float32_names(model, _as_dtype(model.config.dtype))
    return {name: torch.float32 if stays_float32(name) else tensor.dtype for name, tensor in model.state_dict().items()}


def model_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Class of the config's first architecture: transformers' own, or one registered with its auto classes.

    Raises:
        InputError: the architecture is neither; remote code is never run.
    """
    name = (config.architectures or ["none"])[0]
    found = getattr(transformers, name, None)
    if isinstance(found, type) and issubclass(found, PreTrainedModel):
        return found
    for auto in _AUTO_CLASSES:
        registered = registered_class(auto, config)
        # A class of transformers' own here would be a guess at what the unknown name means.
        if registered is not None and not registered.__module__.startswith("transformers."):
            return registered
    raise InputError(
        f"architecture '{name}' of config.json is not in transformers {transformers.__version__}; "
        "code from checkpoints is never run"
    )


def _read_config(folder: Path) -> PreTrainedConfig:
    raw = read_json(folder / "config.json")
    for part in (raw, *(value for value in raw.values() if isinstance(value, dict))):
        for key in ("quantization_config", "compression_config"):
            if part.get(key):
                if "tamp_bitmask" in str(part[key]):
                    raise InputError(
                        f"{folder} is in the bitmask form, which is loaded but not pruned: "
                        f"turn it back with `tamp export {folder} --format dense --out NEW`"
                    )
                raise InputError(f"{folder} is quantised (config.json has {key}): prune the unquantised checkpoint")
    load_port(raw.get("model_type"))
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise InputError(f"{folder / 'config.json'} cannot be used: {' '.join(str(error).split())}") from None


def _as_dtype(value: torch.dtype | str | None) -> torch.dtype | None:
    return getattr(torch, value) if isinstance(value, str) else value


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Silence the loader's own bar, which would break ours."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
