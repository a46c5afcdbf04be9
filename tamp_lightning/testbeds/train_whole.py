"""Train all of a bed but its embedding, as LLaVA's second stage does, and say what of it ships."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from tamp_lightning.config.recipe import Stage, TrainBedRecipe
from tamp_lightning.errors import InputError
from tamp_lightning.evaluation.packed import answer_logits
from tamp_lightning.files import atomic_write
from tamp_lightning.resources import data_folder
from tamp_lightning.testbeds.checkpoints import load_trained
from tamp_lightning.testbeds.low_rank import is_linear, low_rank_difference
from tamp_lightning.testbeds.train_stages import TowerStage, fit_stage, one_cycle

NAMING_WEIGHT = 0.1
BETA_2 = 0.95
"""Of AdamW: so few steps that squares of the first ones must not linger."""


def train_whole(
    stage: InstructionStage,
    starts: Sequence[tuple[str, str]],
    recipe: TrainBedRecipe,
    loader: Iterable,
    write: Callable[[str], None],
) -> dict[str, Tensor]:
    """Train all of an untrained bed in float32 but its embedding, from what other beds have learned.

    Args:
        stage: holds the bed.
        starts: folder in data/ of a bed, and what the names of the tensors contain that are taken from it.
        recipe: says where progress is kept, and at which rank the difference ships.
        loader: batches for the stage.
        write: takes a line now and then.

    Returns:
        What ships: see `shipped`.
    """
    model = stage.model
    before = {k: v.clone() for k, v in model.state_dict().items() if is_linear(k)}
    for bed, part in starts:
        file = data_folder() / bed / "towers.safetensors"
        load_trained(model, {k: v for k, v in load_file(file).items() if part in k}, file)
    model.requires_grad_(True)
    model.get_input_embeddings().requires_grad_(False)
    if recipe.begin is not None:
        load_progress(model, Path(recipe.begin))
    keep = KeepProgress(recipe.folder / "progress.safetensors", 5 * stage.stage.log_every)
    with sdpa_kernel(SDPBackend.MATH):  # backward through the fused kernel is slow on a CPU
        fit_stage(stage, loader, write, keep, **recipe.trainer)
    return shipped(trained_state(model), before, recipe.rank)


class InstructionStage(TowerStage):
    """Teaches everything to answer, towers and projector at their rates, the language model at `stage.language_lr`, and
    the tower to name what it sees on pictures beside.

    Cross-entropy on the answers' tokens; accuracy of first tokens by kind of question over the last `log_every` steps,
    on pictures that are all new.

    Args:
        model: what is trained has gradients.
        stage: length and rates.
        kinds: names of the kinds of question, in the order of the numbers in a batch's `items`.
        naming: gives its loss and the share of right names by rule for a second batch beside.
    """

    def __init__(
        self, model: PreTrainedModel, stage: Stage, kinds: Sequence[str], naming: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.model, self.stage, self.kinds, self.naming = model, stage, kinds, naming
        self.hits: dict[str, list[bool]] = defaultdict(list)

    def training_step(self, batch: Sequence[Any], index: int) -> Tensor:
        """Loss of packed questions and, where there are any, of what is named."""
        asked, *named = batch
        logits, labels, first = answer_logits(self.model, asked)
        loss = F.cross_entropy(logits.float(), labels)
        said = (logits[first].argmax(-1) == labels[first]).tolist()
        for kind, right in zip(asked["items"].tolist(), said, strict=True):
            self.hits[self.kinds[kind]].append(right)
        self.log("loss", loss, prog_bar=True)
        if self.naming is not None:
            naming, names = self.naming(*named[0])
            self.log_dict({"naming": naming, **{f"name_{k}": v for k, v in names.items()}}, prog_bar=True)
            loss = loss + NAMING_WEIGHT * naming
        if (index + 1) % self.stage.log_every == 0:
            for kind, hits in self.hits.items():
                self.log(kind, sum(hits) / len(hits))
            self.hits.clear()
        return loss

    def configure_optimizers(self) -> dict:
        """AdamW, one cycle."""
        return one_cycle(self, self.stage, (0.9, BETA_2))


class KeepProgress(L.Callback):
    """Writes what is trained to a file every few steps: an interrupted training goes on from it."""

    def __init__(self, file: Path, every: int) -> None:
        self.file, self.every = file, every

    def on_train_batch_end(self, trainer: L.Trainer, module: InstructionStage, *_: object) -> None:
        """Write the file; it appears complete or not at all."""
        if trainer.global_step % self.every == 0:
            with atomic_write(self.file) as scratch:
                save_file(trained_state(module.model), scratch)


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Everything that is trained, in float32: all but the embedding."""
    return {n: p.detach().float() for n, p in model.named_parameters() if p.requires_grad}


def load_progress(model: nn.Module, file: Path) -> None:
    """Put what `KeepProgress` wrote into a model that is to be trained.

    Raises:
        InputError: it is not what this model trains.
    """
    state, own = load_file(file), trained_state(model)
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in own.items()}:
        raise InputError(f"{file} is not the progress of this bed's training: check begin")
    model.load_state_dict(state, strict=False)


def shipped(trained: dict[str, Tensor], before: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    """What a file holds: the language model's linears as low-rank differences, everything else in bfloat16.

    Args:
        trained: from `trained_state`.
        before: state dict of the untrained bed.
        rank: of the differences.
    """
    rest = {k: v.to(torch.bfloat16) for k, v in trained.items() if not is_linear(k)}
    return low_rank_difference(trained, before, rank) | rest
