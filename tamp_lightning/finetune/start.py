"""What finetuning starts from: a run folder with its masks, or a sparse checkpoint."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tamp_lightning.config.recipe import FinetuneRecipe
from tamp_lightning.errors import InputError
from tamp_lightning.finetune.masks import check_masks, masks_from_zeros
from tamp_lightning.finetune.target import Target
from tamp_lightning.ops.bits import mask_sha256
from tamp_lightning.runs.folder import RunFolder
from tamp_lightning.testbeds.checkpoints import resolve


@dataclass(frozen=True)
class Start:
    """A checked starting point."""

    target: Target
    masks: dict[str, Tensor]
    """Full linear name -> BoolTensor, True = kept, of towers too if they were pruned; empty for a dense control."""
    run: Path | None
    """The run folder, if it is one."""
    source: str | None
    """The dense checkpoint that a run folder was pruned from."""
    inferred: str = ""
    """What to warn of where masks were told from zeros."""

    @property
    def block_masks(self) -> dict[str, Tensor]:
        """Those of the decoder blocks' linears."""
        return {name: mask for name, mask in self.masks.items() if name in self.target.linears}

    @property
    def kept(self) -> int:
        """Weights of the decoder blocks that the masks keep."""
        return sum(int(mask.sum()) for mask in self.block_masks.values())

    @property
    def size(self) -> int:
        """Weights of all linears of the decoder blocks."""
        return sum(math.prod(linear.shape) for linear in self.target.linears.values())

    @property
    def sparsity(self) -> float:
        """Share of these weights that the masks hold at zero."""
        return sum(mask.numel() for mask in self.block_masks.values()) / self.size - self.kept / self.size

    def digest(self) -> str:
        """Hash of all masks."""
        lines = [f"{name} {mask_sha256(mask)}" for name, mask in sorted(self.masks.items())]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def find_start(checkpoint: str, allow_dense: bool) -> Start:
    """Find a checkpoint and its masks, and check that they belong together.

    Raises:
        InputError: nothing is sparse, a file is damaged, or masks are of another model or disagree with the weights.
        FileNotFoundError: there is no such checkpoint.
    """
    run = RunFolder(Path(checkpoint))
    if not run.holds_masks:
        return _from_checkpoint(checkpoint, allow_dense)
    target, masks = Target.find(resolve(str(run.model))), run.read_masks()
    check_masks(target, masks)
    described = run.read_run() if run.is_finished else {}
    return Start(target, masks, run.path, described.get("source"))


def _from_checkpoint(checkpoint: str, allow_dense: bool) -> Start:
    target = Target.find(resolve(checkpoint))
    masks = masks_from_zeros(target)
    if not masks and not allow_dense:
        raise InputError(
            f"{checkpoint} is dense: no linear of its decoder blocks has 1 % zeros; prune it first, "
            "or set allow_dense: true for a control"
        )
    told = f"{checkpoint} is no run folder: the masks of {len(masks)} linears are told from their zeros"
    return Start(target, masks, None, None, told if masks else "")


def find_dense(recipe: FinetuneRecipe, start: Start) -> Path | None:
    """The dense model, if it is known; in mode distill it has to be, and to fit.

    Raises:
        InputError: nobody says which it is, or it is another model.
        FileNotFoundError: the named one is not there.
    """
    named = recipe.distill.teacher or start.source
    if recipe.mode != "distill":
        return Path(named) if named and Path(named).is_dir() else None
    if named is None:
        raise InputError("mode distill needs the dense model: give --distill.teacher=DIR")
    teacher, student = Target.find(resolve(named)), start.target
    heads = [target.model.get_output_embeddings().weight.shape for target in (teacher, student)]
    if teacher.facts.linears != student.facts.linears or heads[0] != heads[1]:
        raise InputError(f"distill.teacher {named} is another model than {student.folder}: blocks or vocabulary differ")
    return teacher.folder


def write_masks(out: RunFolder, start: Start) -> None:
    """masks.safetensors and plan.json of a run folder: the start's own, byte for byte, or made from its masks."""
    if start.run is not None:
        out.copy_masks(RunFolder(start.run))
    elif start.masks:
        out.write_masks(start.masks)
