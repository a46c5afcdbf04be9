"""What the engine must know of a model: its decoder blocks, their linears, the modality of each token."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tamp_lightning.checkpoint.adapter import AUDIO, IMAGE, TEXT, VIDEO, adapter_of
from tamp_lightning.checkpoint.experts import prunable, shape_of
from tamp_lightning.checkpoint.linear import OUTSIDE, Linear
from tamp_lightning.checkpoint.names import KeyMap, stored_linear
from tamp_lightning.checkpoint.reader import CheckpointReader
from tamp_lightning.compat.experts import are_experts
from tamp_lightning.errors import InputError
from tamp_lightning.methods.selection import ALL, Selection
from tamp_lightning.methods.towers import Towers

# How inputs of towers are called; masks and grids beside them are not media.
_MEDIA = ("pixel_values", "input_features", "input_values")
_NOT_MEDIA = ("inputs_embeds", "mask", "valid", "sample_ids")

__all__ = ["AUDIO", "IMAGE", "TEXT", "VIDEO", "ModelFacts", "find_facts", "media_of", "tower_linears"]


@dataclass(frozen=True)
class ModelFacts:
    """Where the decoder blocks and their prunable linears are, and which token ids stand for which modality.

    Attributes:
        blocks: dotted path of the decoder's ModuleList in the model, e.g. ``model.language_model.layers``.
        linears: per block, its prunable linears, in module order.
        modality_ids: placeholder token id -> IMAGE, VIDEO or AUDIO.
        self_attention: whether token rules that choose by attention can be used.
        attention: per block, whether it attends from the sequence's tokens to the sequence's tokens (blocks of linear
            attention, convolution or state spaces do not); empty = all do. Found by `stream.rehearsal`.
        towers: the linears of towers and projector that may be pruned; empty where they stay dense.
    """

    blocks: str
    linears: tuple[tuple[Linear, ...], ...]
    modality_ids: dict[int, int]
    self_attention: bool = True
    towers: tuple[Linear, ...] = ()
    attention: tuple[bool, ...] = ()

    def attends(self, block: int) -> bool:
        """Whether block number ``block`` has the self-attention that token rules can choose by."""
        return not self.attention or self.attention[block]

    @property
    def all_linears(self) -> tuple[Linear, ...]:
        """The prunable linears of all blocks, in order."""
        return tuple(linear for block in self.linears for linear in block)

    def stored(self, keys: KeyMap, reader: CheckpointReader) -> ModelFacts:
        """The same facts, with every linear's key on disk.

        Raises:
            InputError: a linear is not stored as one tensor of its own, or not as plain floating point.
        """
        linears = tuple(tuple(stored_linear(one, keys, reader) for one in block) for block in self.linears)
        return replace(self, linears=linears, towers=tuple(stored_linear(one, keys, reader) for one in self.towers))

    def modality(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Modality of every token: TEXT, IMAGE, VIDEO or AUDIO.

        ``mm_token_type_ids`` is used where it has transformers' meaning, i.e. calls every placeholder by its
        own modality (some processors mark all with 1). Otherwise the placeholders in ``input_ids`` decide.

        Args:
            batch: model inputs with ``input_ids`` [B, n], ``mm_token_type_ids`` [B, n], or both.

        Returns:
            int64 tensor [B, n].

        Raises:
            InputError: the batch has neither, or pictures, videos or sounds without a token that stands for them.
        """
        modality = self._modality(batch)
        media = media_of(batch)
        if media and not bool((modality != TEXT).any()):
            raise InputError(
                f"the batch has {media[0]}, but every token in it counts as text: its placeholders are not among "
                f"the model's ({sorted(self.modality_ids) or 'none known'}); an adapter can name them"
            )
        return modality

    def _modality(self, batch: Mapping[str, Tensor]) -> Tensor:
        given, ids = batch.get("mm_token_type_ids"), batch.get("input_ids")
        if ids is None and given is None:
            raise InputError(f"cannot tell modalities: no input_ids or mm_token_type_ids among {sorted(batch)}")
        if ids is None:
            assert given is not None
            return given.long()
        by_placeholder = torch.zeros_like(ids, dtype=torch.int64)
        for token, modality in self.modality_ids.items():
            by_placeholder[ids == token] = modality
        return given.long() if given is not None and _agree(given, by_placeholder) else by_placeholder


def media_of(batch: Mapping[str, Tensor]) -> list[str]:
    """Names of a batch's inputs that hold pictures, videos or sounds: by name, or numbers of three or more axes."""
    return [key for key, value in batch.items() if any(name in key for name in _MEDIA) or _is_medium(key, value)]


def _is_medium(key: str, value: Tensor) -> bool:
    measured = isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 3
    return measured and not any(name in key for name in _NOT_MEDIA)


def find_facts(model: PreTrainedModel, selection: Selection = ALL) -> ModelFacts:
    """Find the decoder blocks, prunable linears and modality placeholders of ``model``.

    Only ``nn.Linear`` and the matrices of experts are ever prunable: those inside the decoder blocks and, on request,
    linears of towers and projector; embeddings and head are not. Works on parameters on the meta device.

    Args:
        model: any transformers model with a decoder (``get_decoder()``).
        selection: which of them are wanted.

    Raises:
        InputError: no decoder blocks, an architecture that cannot be pruned block by block, a pattern that is
            no regular expression or finds no linear, no linear left, or a linear whose weight is shared.
    """
    adapter = adapter_of(model.config)
    if model.config.is_encoder_decoder:
        raise InputError(f"{type(model).__name__} is an encoder-decoder; only decoder-only language models are pruned")
    path, blocks = block_list(model)
    dense = [re.compile(pattern) for pattern in adapter.dense(model)]
    found = [list(prunable(block, index, path, dense)) for index, block in enumerate(blocks)]
    names = [linear.full for own in found for linear in own]
    stacked = _stacked(path, blocks)
    chosen = set(_choose([*names, *stacked], selection.include, selection.exclude, "the decoder blocks"))
    _refuse_stacked([name for name in stacked if name in chosen])
    if not chosen:
        raise InputError(
            f"no linear left to prune in {path} ({len(names)} found, include={list(selection.include)}, "
            f"exclude={list(selection.exclude)}): relax the patterns"
        )
    outside = _find_towers(model, path, selection.towers) if selection.towers.on else ()
    linears = tuple(tuple(linear for linear in own if linear.full in chosen) for own in found)
    parameters = {f"{path}.{linear.block}.{linear.parameter}" for own in linears for linear in own}
    _refuse_shared(model, parameters | {f"{name}.weight" for name in outside})
    towers_found = tuple(Linear(OUTSIDE, name, name, shape_of(model.get_submodule(name))) for name in outside)
    return ModelFacts(path, linears, adapter.placeholders(model.config), adapter.self_attention, towers_found)


def block_list(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Dotted path of the decoder blocks in the model, and the list.

    Raises:
        InputError: there is no such list, or more than one.
    """
    blocks = adapter_of(model.config).blocks(model)
    return next(path for path, module in model.named_modules() if module is blocks), blocks


def tower_linears(model: PreTrainedModel, blocks: str) -> list[str]:
    """Full names of all linears outside of the decoder but the head; which of them media reach shows in calibration."""
    decoder, head = blocks.rpartition(".")[0], model.get_output_embeddings()
    if not adapter_of(model.config).towers:
        return []
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and not name.startswith(f"{decoder}.")
    ]


def _find_towers(model: PreTrainedModel, blocks: str, towers: Towers) -> tuple[str, ...]:
    """Full names of the linears of towers and projector, in module order.

    Args:
        model: the model; parameters may be on the meta device.
        blocks: dotted path of its decoder blocks.
        towers: which of them are wanted.

    Raises:
        InputError: there are none, or a pattern is no regular expression or finds none of them.
    """
    found = tower_linears(model, blocks)
    if not found:
        raise InputError(
            f"towers.sparsity is {towers.sparsity}, but {type(model).__name__} has no linear outside of its decoder "
            "of which it is known what in its input is padding: leave it 0"
        )
    chosen = tuple(_choose(found, towers.include, towers.exclude, "towers and projector", "towers."))
    if not chosen:
        raise InputError(
            f"no linear of towers and projector left to prune ({len(found)} found, include={towers.include}, "
            f"exclude={towers.exclude}): relax the patterns"
        )
    return chosen


def _agree(given: Tensor, by_placeholder: Tensor) -> bool:
    """Whether ``mm_token_type_ids`` names every placeholder's modality (it may mark separators too)."""
    if given.shape != by_placeholder.shape or bool(((given < TEXT) | (given > AUDIO)).any()):
        return False
    placed = by_placeholder != TEXT
    return torch.equal(given[placed].long(), by_placeholder[placed])


def _stacked(path: str, blocks: nn.ModuleList) -> list[str]:
    """Full names of the parameters that stack several matrices in a way that is not known."""
    return [
        f"{path}.{name}.{key}"
        for name, module in blocks.named_modules()
        for key, value in module.named_parameters(recurse=False)
        if value.ndim >= 3 and not isinstance(module, nn.modules.conv._ConvNd) and not are_experts(module)
    ]


def _refuse_stacked(names: Sequence[str]) -> None:
    """Refuse such matrices, unless they are left out: most weights would silently stay as they are."""
    if names:
        modules = sorted({name.split(".")[-2] for name in names})
        patterns = ", ".join(f"'{module}\\.'" for module in modules)
        raise InputError(
            f"{names[0]} stacks several matrices (a mixture of experts) that transformers does not run through its "
            "registry of experts, so that nothing tells which tokens each gets: "
            f"leave them dense with exclude: [{patterns}], and all other linears are pruned"
        )


def _choose(
    names: Sequence[str], include: Sequence[str], exclude: Sequence[str], place: str, section: str = ""
) -> Iterator[str]:
    wanted = [_compile(pattern, f"{section}include", names, place) for pattern in include]
    unwanted = [_compile(pattern, f"{section}exclude", names, place) for pattern in exclude]
    for name in names:
        if (not wanted or any(w.search(name) for w in wanted)) and not any(u.search(name) for u in unwanted):
            yield name


def _compile(pattern: str, role: str, names: Sequence[str], place: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"{role} pattern '{pattern}' is not a regular expression: {error}") from None
    if not any(compiled.search(name) for name in names):
        kinds = sorted({name.rpartition(".")[2] for name in names})
        raise InputError(
            f"{role} pattern '{pattern}' finds no linear of {place} ({', '.join(kinds)}); "
            f"it is searched in full names such as '{names[0] if names else ''}', so correct or drop it"
        )
    return compiled


def _refuse_shared(model: PreTrainedModel, parameters: set[str]) -> None:
    """Refuse a chosen weight that another module uses too: zeroing it would change both."""
    owners: dict[int, list[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(value) if value.is_meta else value.data_ptr(), []).append(name)
    groups = [names for names in owners.values() if len(names) > 1]
    # On the meta device tied parameters can be separate objects, so what transformers declares counts too.
    groups += [list(pair) for pair in (getattr(model, "all_tied_weights_keys", None) or {}).items()]
    for names in groups:
        for name in names:
            if name in parameters:
                others = [other for other in names if other != name]
                raise InputError(f"{name} is shared with {', '.join(others)}, pruning it would change both: exclude it")
