"""Where a run writes, what decides its result, and whether it can be continued."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L

from tamp_lightning.config.plugins import contents
from tamp_lightning.config.recipe import PruneRecipe
from tamp_lightning.errors import InputError
from tamp_lightning.runs.state import is_unfinished, refuse_finished

NO_MATTER = ("task", "out", "cache")
"""Sections of a recipe that change no bit of the result."""
SHOWS_ONLY = ("enable_progress_bar", "enable_model_summary", "logger", "log_every_n_steps", "default_root_dir")
"""Arguments of lightning.Trainer that change nothing but what is shown."""


def run_path(out: str | None, name: str, is_first: bool = True) -> Path:
    """The run folder, which must be new or hold an unfinished run when the first process looks.

    Args:
        out: as a recipe names it; None = a folder named after the recipe and the time.
        name: of the recipe.
        is_first: whether this process looks.

    Raises:
        InputError: it holds something else.
    """
    path = Path(out or f"runs/{name}-{datetime.now():%Y%m%d-%H%M%S}")
    if is_first:
        refuse_finished(path, "choose another with --out")
    return path


def settings_of(recipe: PruneRecipe) -> dict[str, Any]:
    """What of a recipe decides the result, as JSON values."""
    settings = asdict(recipe) | {"plugins": contents(recipe.plugins)}
    trainer = {key: str(value) for key, value in recipe.trainer.items() if key not in SHOWS_ONLY}
    return {key: value for key, value in settings.items() if key not in NO_MATTER} | {"trainer": trainer}


def may_continue(trainer: L.Trainer, out: Path, is_named: bool, is_layerwise: bool, limit: float | None) -> bool:
    """Whether such a run keeps what it needs to be continued once it has been killed.

    Args:
        trainer: in how many processes.
        out: the run folder.
        is_named: whether the recipe names it, so that all processes know it, and know it again.
        is_layerwise: whether it is scored layer by layer.
        limit: GB of RAM for hidden states; what goes beyond waits under the run folder. None = they all wait in RAM.

    Raises:
        InputError: it does not, and the folder holds a killed run or the cache is to lie in a folder; or its processes
            would not agree on a folder.
    """
    if trainer.world_size > 1:
        _refuse_restarts(is_named)
        if not is_named and limit is not None:
            raise InputError(
                f"cache.limit_gb is {limit}; processes need a folder that all know for what goes beyond: give --out"
            )
    if not is_layerwise:
        return True
    what = "scores.mode layer_wise"
    if trainer.is_global_zero and is_unfinished(out):
        raise InputError(f"{out} holds an unfinished run, which {what} cannot continue: choose another with --out")
    if limit is not None:
        raise InputError(f"cache.limit_gb is {limit}; with {what} all hidden states wait in RAM: leave it out")
    return False


def _refuse_restarts(is_named: bool) -> None:
    """Refuse to be started again by torchrun where that would fail."""
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) == 0:
        return
    if not is_named:
        raise InputError("torchrun may restart this run, which would not find its folder again: give it one with --out")
    # PyTorch 2.13 leaves addresses of dead processes in the store of its agents
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise InputError(
            "torchrun may restart this run, whose processes would look for those of the attempt before: set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 and start it with --standalone or --rdzv-backend=c10d"
        )
