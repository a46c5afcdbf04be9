"""The Python door: give a model and calibration batches, get it back pruned. Same engine as the command line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tamp_lightning.checkpoint.reader import CheckpointReader
from tamp_lightning.compat.known_warnings import without_known_warnings
from tamp_lightning.config.build import build
from tamp_lightning.data.calibration import CalibrationData
from tamp_lightning.errors import InputError
from tamp_lightning.methods.method import Method
from tamp_lightning.methods.selection import Selection
from tamp_lightning.methods.towers import Towers
from tamp_lightning.ops.bits import unpack_bits
from tamp_lightning.passes.pruned import Pruned
from tamp_lightning.passes.trainer import prune_stream, scoring_trainer
from tamp_lightning.reporting.card import Base, prune_card, write_cards
from tamp_lightning.runs.fingerprint import fingerprint
from tamp_lightning.runs.folder import RunFolder
from tamp_lightning.runs.state import RunState, is_unfinished, refuse_finished
from tamp_lightning.stream import DiskStream, MemoryStream
from tamp_lightning.stream.cache import CacheSpace


@dataclass(frozen=True)
class PruneResult:
    """What `prune` did."""

    model: PreTrainedModel | None
    """The model that was given, pruned; None if a checkpoint folder was given."""
    checkpoint: Path | None
    """Folder of the pruned checkpoint; None if nothing was written."""
    sparsity: float
    """Share of the decoder blocks' prunable weights that are masked, counted from the masks."""
    plan: dict[str, dict[str, Any]]
    """Per linear: weights kept, size, sparsity, tokens that counted, mask's sha256 (as in plan.json)."""
    towers_sparsity: float | None
    """The same share of the linears of towers and projector that were pruned; None where they stay dense."""
    towers: dict[str, dict[str, Any]]
    """Like `plan`, for the linears of towers and projector; empty where they stay dense."""
    seconds: dict[str, float]
    """Wall-clock seconds of the measure and prune walks."""
    _masks: dict[str, Tensor] = field(repr=False)

    def mask(self, name: str) -> Tensor:
        """Mask of a linear by its full module name: bool, shaped like the weight, True = kept.

        Raises:
            KeyError: no such linear was pruned.
        """
        return unpack_bits(self._masks[name], (self.plan | self.towers)[name]["shape"])


def prune(
    model_or_path: PreTrainedModel | str | Path,
    calibration: CalibrationData | Sequence[Mapping[str, Tensor]],
    *,
    method: Method | Mapping[str, Any] | None = None,
    towers: Towers | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    dtype: torch.dtype | None = None,
    cache_gb: float | None = None,
    progress: bool = True,
    **trainer: Any,
) -> PruneResult:
    """Prune a model in memory in place, or a checkpoint folder block by block into a new one.

    Args:
        model_or_path: a transformers model, or the folder of a safetensors checkpoint. A model of `torch.compile` is
            pruned as it was before (the result's `model`), and is pruned itself then, since it has the same weights.
        calibration: batches a processor made (dicts of tensors, padded on the right), or a `CalibrationData`.
        method: a `Method`, or its fields as in a recipe, such as `{"sparsity": 0.6, "amia": {"neighbors": 5}}`;
            TAMP at 50 % by default.
        towers: what of towers and projector is pruned too, such as `{"sparsity": 0.3, "exclude": ["projector"]}`;
            they stay dense by default.
        out: new folder for `model/`, `plan.json` and `masks.safetensors`; a checkpoint folder needs it. The same call
            again continues a run that was killed, after its last finished block.
        include: regular expressions on full linear names; empty = every linear of the decoder blocks.
        exclude: regular expressions on full linear names that stay dense.
        dtype: what to compute in, for a checkpoint folder; None = its own.
        cache_gb: RAM for hidden states, for a checkpoint folder; what goes beyond waits in mapped files under `out`.
            None = no limit.
        progress: show a progress bar.
        **trainer: further arguments of `lightning.Trainer`.

    Returns:
        The result. A model in memory keeps its modes, gradient flags and attention implementation.

    Raises:
        InputError: bad input, in one line. A model in memory may then have some blocks pruned already.
    """
    model_or_path = model_of(model_or_path)
    chosen = method if isinstance(method, Method) else build(Method, method or {}, "method")
    extra = towers if isinstance(towers, Towers) else build(Towers, towers or {}, "towers")
    in_memory = isinstance(model_or_path, PreTrainedModel)
    folder = _run_folder(out, in_memory)
    state: RunState | None = None
    data = calibration if isinstance(calibration, CalibrationData) else _from_batches(calibration)
    with without_known_warnings():
        _refuse_several(trainer)
        if isinstance(model_or_path, PreTrainedModel):
            if dtype is not None:
                raise InputError("dtype is for checkpoint folders: a model in memory computes in its own")
            stream = MemoryStream(model_or_path, Selection(include, exclude, extra))
            with _as_it_was(model_or_path):
                options = _device_of(model_or_path) | trainer
                pruned = prune_stream(stream, data, chosen, progress=progress, **options)
            if folder is not None:
                model_or_path.save_pretrained(RunFolder(folder).model)
        else:
            if folder is None:
                raise InputError("out is missing: name a new folder for the pruned checkpoint")
            wanted = Selection(list(include), list(exclude), extra)
            disk, state = _open(Path(model_or_path), folder, chosen, wanted, dtype, trainer)
            space = CacheSpace(state.folder, None if cache_gb is None else int(cache_gb * 1e9))
            pruned = prune_stream(disk, data, chosen, state=state, space=space, progress=progress, **trainer)
    model = model_or_path if isinstance(model_or_path, PreTrainedModel) else None
    if folder is not None:
        base = Base(type(model).__name__) if model is not None else Base.find(Path(str(model_or_path)))
        card = prune_card(base, pruned.plan, asdict(chosen))
        write_cards(RunFolder(folder).model, card, base)
    result = _result(model, folder, pruned)
    if state is not None:
        state.close()
    return result


def _open(
    source: Path,
    folder: Path,
    method: Method,
    selection: Selection,
    dtype: torch.dtype | None,
    trainer: Mapping[str, Any],
) -> tuple[DiskStream, RunState]:
    """The stream over a checkpoint folder, and the state of an earlier run with the same arguments if there was one."""
    device = scoring_trainer(**trainer).strategy.root_device
    reader = CheckpointReader(source)  # refuses what is no checkpoint
    options = {key: str(value) for key, value in trainer.items()}
    patterns = {"include": selection.include, "exclude": selection.exclude}
    settings = {"method": asdict(method), "towers": asdict(selection.towers), "model": patterns, "trainer": options}
    state = RunState(folder, fingerprint(reader.folder, settings, dtype, device))
    out = RunFolder(folder).model
    return DiskStream(source, out, dtype=dtype, device=device, selection=selection, resumes=state.resumes), state


def _result(model: PreTrainedModel | None, folder: Path | None, pruned: Pruned) -> PruneResult:
    plan, checkpoint = pruned.plan, None
    if folder is not None:
        held = RunFolder(folder)
        held.write_plan(plan)
        held.write_bits(plan, pruned.masks)
        checkpoint = held.model
    towers = plan.towers_sparsity, plan.towers
    return PruneResult(model, checkpoint, plan.sparsity, plan.linears, *towers, pruned.seconds, pruned.masks)


def _refuse_several(trainer: Mapping[str, Any]) -> None:
    if (processes := scoring_trainer(**trainer).world_size) > 1:
        raise InputError(f"trainer asks for {processes} processes: set devices to 1, or prune with `tamp run`")


def _run_folder(out: str | Path | None, in_memory: bool) -> Path | None:
    if out is None:
        return None
    folder = Path(out)
    if in_memory and is_unfinished(folder):
        raise InputError(f"out {folder} holds an unfinished run, which a model in memory cannot continue")
    refuse_finished(folder, "name a new folder")
    return folder


def _from_batches(batches: Sequence[Mapping[str, Tensor]]) -> CalibrationData:
    if isinstance(batches, Mapping):
        raise InputError("calibration is one batch: give a list of batches")
    if isinstance(batches, str | Path | Tensor) or not isinstance(batches, Iterable):
        raise InputError(f"calibration is a {type(batches).__name__}: give a list of batches, or a CalibrationData")
    return CalibrationData.from_batches(list(batches))


def model_of(given: Any) -> PreTrainedModel | str | Path:
    """The transformers model within what was given, or a path.

    Raises:
        InputError: it is neither; the message says what to give instead.
    """
    found = getattr(given, "_orig_mod", given)  # of torch.compile
    if any(kind.__module__.partition(".")[0] == "peft" for kind in type(found).__mro__):
        name = type(found).__name__
        raise InputError(f"{name} has adapters beside its weights: merge them first, model = model.merge_and_unload()")
    if getattr(found, "_hf_peft_config_loaded", False):
        raise InputError(f"{type(found).__name__} has adapters beside its weights: merge or delete them first")
    if isinstance(found, PreTrainedModel | str | Path):
        return found
    hint = ": give what it wraps, model.module" if isinstance(getattr(found, "module", None), PreTrainedModel) else ""
    what = "is None" if found is None else f"is a {type(found).__module__}.{type(found).__name__}"
    raise InputError(f"model_or_path {what}, expected a transformers model or the folder of a checkpoint{hint}")


def _device_of(model: PreTrainedModel) -> dict[str, Any]:
    """Trainer arguments that bring the batches to where the model is."""
    device = model.device
    if device.type == "cuda":
        return {"accelerator": "gpu", "devices": [device.index or 0]}
    return {"accelerator": device.type, "devices": 1}


@contextmanager
def _as_it_was(model: PreTrainedModel) -> Iterator[None]:
    """Eval mode and nothing compiled inside; afterwards modes, gradient flags and compiled calls are what they were."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    compiled = [(module, call) for module in model.modules() if (call := module._compiled_call_impl) is not None]
    for module, _ in compiled:  # hooks and early ends are not for compiled code
        module._compiled_call_impl = None
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for module, call in compiled:
            module._compiled_call_impl = call
