"""What differs between families of models: how each keeps its blocks, linears and modalities."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from tamp_lightning.errors import InputError
from tamp_lightning.registry import Registry

TEXT, IMAGE, VIDEO, AUDIO = 0, 1, 2, 3

_PLACEHOLDERS = {"image": IMAGE, "video": VIDEO, "audio": AUDIO}
# Native ports, by the model type in config.json: importing one makes transformers' auto classes know it.
_PORTS = {"videollama2_qwen2": "tamp_lightning.models.videollama2"}
_BUILT_IN = "tamp_lightning.models.adapters"
# Masks over the tokens of the sequence; all others are over pixels or sound.
_TOKEN_MASKS = ("attention_mask", "cross_attention_mask")

ROUTERS = (r"(^|\.)router(\.|$)", r"(^|\.)shared_expert_gate$")
"""Linears that choose experts, or how much the shared one counts; most families have a bare weight there."""


class Adapter:
    """Where a family keeps what pruning needs. As it stands it follows transformers' conventions.

    Subclass it for a family that departs from them, override what differs, and put `ADAPTERS.register` with its
    `model_type` above. Nothing here may read weights: models come with their parameters on the meta device.

    Attributes:
        self_attention: whether every block attends from the sequence's tokens to the sequence's tokens; token rules
            that choose by attention need it.
        towers: whether linears of towers and projector may be pruned on request: it has to be known which of the tokens
            that they read are padding (`tower_tokens`).
        in_place: regular expressions on names of linears, relative to their block, into whose outputs the family's own
            code writes afterwards.
    """

    self_attention: bool = True
    towers: bool = True
    in_place: Sequence[str] = ()

    def blocks(self, model: PreTrainedModel) -> nn.ModuleList:
        """The decoder blocks in the order in which they are called: `layers` of the innermost `get_decoder()`.

        Raises:
            InputError: there is no such list, or more than one.
        """
        decoder: nn.Module = model.get_decoder()
        while isinstance(decoder, PreTrainedModel) and (inner := decoder.get_decoder()) is not decoder:
            decoder = inner
        # a language model whose base_model_prefix names another module takes itself for its decoder (Llama 4)
        while not (lists := _lists(decoder)) and (inner := _only_model(decoder)) is not None:
            decoder = inner
        name = "layers" if "layers" in lists else next(iter(lists), None)
        if name is None and decoder is model:
            _refuse_several(model)
        if name is None or (name != "layers" and len(lists) > 1):
            raise InputError(
                f"cannot tell the decoder blocks of {type(model).__name__}: {type(decoder).__name__} has the "
                f"module lists {sorted(lists) or 'none'}; expected 'layers' or exactly one"
            )
        return lists[name]

    def dense(self, model: PreTrainedModel) -> Sequence[str]:
        """Regular expressions on names of linears, relative to their block, that are never pruned.

        Such are linears that read something else than the sequence's tokens, which statistics over tokens do not cover,
        and those that choose experts: they are tiny, and a choice that tips over changes everything after it.
        """
        return ROUTERS

    def routed(self, layer: str, kwargs: Mapping[str, Any]) -> Tensor | None:
        """Which tokens a layer of experts is given, bool [B, n]; None = all, as in most families.

        Args:
            layer: its module name, relative to the block.
            kwargs: what the block is called with, beside the hidden state.
        """
        return None

    def placeholders(self, config: PreTrainedConfig) -> dict[int, int]:
        """Token id -> IMAGE, VIDEO or AUDIO: `image_token_id`, `image_token_index` and so on.

        They stand in the config, or in that of the tower which makes the medium's features.
        """
        ids: dict[int, int] = {}
        for part in (config, getattr(config, "vision_config", None), getattr(config, "audio_config", None)):
            for name, modality in _PLACEHOLDERS.items():
                for key in (f"{name}_token_id", f"{name}_token_index"):
                    value = getattr(part, key, None)
                    if isinstance(value, int):
                        ids.setdefault(value, modality)
        return ids

    def tower_tokens(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """Which tokens that linears of towers and projector read are real, where a family runs them on padding too.

        Args:
            model: the model.
            batch: its inputs.

        Returns:
            Bool masks [items, tokens], one per shape in which linears read them; none where every token is real.

        Raises:
            InputError: a mask among the inputs says that something is padding, and what towers make of it is not known.
        """
        for key, value in batch.items():
            if "mask" in key and key not in _TOKEN_MASKS and not bool(value.all()):
                raise InputError(
                    f"{key} marks padding, and which tokens it becomes in the towers of {type(model).__name__} is not "
                    "known: leave towers.sparsity 0, or let an adapter's tower_tokens say"
                )
        return ()


def _lists(decoder: nn.Module) -> dict[str, nn.ModuleList]:
    """Module lists that a decoder holds itself, by name."""
    return {n: child for n, child in decoder.named_children() if isinstance(child, nn.ModuleList) and len(child)}


def _only_model(decoder: nn.Module) -> PreTrainedModel | None:
    """The one whole model inside of a decoder, if there is one."""
    found = [child for child in decoder.children() if isinstance(child, PreTrainedModel)]
    return found[0] if len(found) == 1 else None


def _refuse_several(model: PreTrainedModel) -> None:
    """Refuse whole models side by side, of which transformers says of none that it is the language model."""
    wholes = {n: type(c).__name__ for n, c in model.named_children() if isinstance(c, PreTrainedModel)}
    if len(wholes) > 1:
        name, kind = next(iter(wholes.items()))
        raise InputError(
            f"{type(model).__name__} is {len(wholes)} models side by side ({', '.join(wholes)}): prune one saved by "
            f"itself, such as its {name} with {kind}.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
        )


class Families(Registry[type[Adapter]]):
    """Adapters by `model_type`, which need not be an identifier; those of this package give way to others'."""

    def add(self, name: str, member: type[Adapter]) -> None:
        """Use an adapter for models whose config has this `model_type`.

        Raises:
            InputError: it is no subclass of `Adapter`.
        """
        if not (isinstance(member, type) and issubclass(member, Adapter)):
            raise InputError(f"adapter {name!r} cannot be registered: {member!r:.80} is no subclass of Adapter")
        if name not in self._members or member.__module__ != _BUILT_IN:
            self._members[name] = member


ADAPTERS = Families("adapter", "tamp_lightning.adapters")


def adapter_of(config: PreTrainedConfig) -> Adapter:
    """The adapter registered for a config's `model_type`, or the one that follows the conventions.

    Raises:
        InputError: another package offers something else than an adapter under that name.
    """
    if config.model_type not in ADAPTERS:
        importlib.import_module(_BUILT_IN)
    return ADAPTERS.get(config.model_type, Adapter)()


def load_port(model_type: object) -> None:
    """Make transformers know a model type that is implemented here, if it is one; cheap for all others."""
    if isinstance(model_type, str) and model_type in _PORTS:
        importlib.import_module(_PORTS[model_type])
