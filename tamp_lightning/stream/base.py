"""What every stream of decoder blocks offers, and the checks they share."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tamp_lightning.checkpoint.facts import ModelFacts
from tamp_lightning.checkpoint.linear import Linear
from tamp_lightning.errors import InputError
from tamp_lightning.methods.towers import Towers
from tamp_lightning.ops.masks import all_finite, keep_where


class Stream(Protocol):
    """Owner of the weights: lends decoder blocks one at a time and takes them back pruned.

    Attributes:
        model: the skeleton. Everything but the decoder blocks is real, so a forward may run up to block 0;
            the caller stops it there with a hook that raises.
        facts: where the blocks and linears are, and which token is of which modality.
        towers: what of towers and projector is pruned.
    """

    model: PreTrainedModel
    facts: ModelFacts
    towers: Towers

    def load(self, index: int, dense: bool = False) -> nn.Module:
        """Return block ``index`` with real weights, in eval mode and without gradients.

        Args:
            index: number of the block.
            dense: the weights as they were before the commit, where the stream still has them.
        """

    def scales(self, index: int) -> list[str]:
        """Names, relative to block ``index``, of the norms' parameters and linears' biases that may change too.

        See :func:`tamp_lightning.checkpoint.scales.scales_of`; none where no linear of the block is prunable.
        """

    def release(self, index: int) -> None:
        """Forget the weights of block ``index``; what was committed stays committed."""

    def commit(self, index: int, masks: Mapping[str, Tensor]) -> None:
        """Take block ``index``, which the caller has pruned in place, as final, `scales` among it.

        Args:
            index: number of the block; it must be loaded, and stays so until released.
            masks: linear name relative to the block -> BoolTensor shaped like its weight, True = kept.

        Raises:
            InputError: a mask fits no linear, or a weight is not zero where its mask is False or not finite.
        """

    def commit_towers(self, masks: Mapping[str, Tensor]) -> None:
        """Take towers and projector, which the caller has pruned in place in `model`, as final.

        Args:
            masks: full linear name -> BoolTensor shaped like its weight, True = kept; linears without one are dense.

        Raises:
            InputError: a mask fits no linear, or a weight is not zero where its mask is False or not finite.
        """

    def finish(self) -> dict[str, str]:
        """Complete the output after the last commit; return the sha256 of every written file by name."""


def check_pruned(module: nn.Module, place: str, linears: Sequence[Linear], masks: Mapping[str, Tensor]) -> None:
    """Check that ``module`` really is pruned as ``masks`` say.

    Args:
        module: the decoder block, or the model.
        place: what it is called in messages.
        linears: its prunable linears.
        masks: linear name, relative to the module -> BoolTensor[out, in], True = kept.

    Raises:
        InputError: unknown linear, wrong dtype or shape, non-zero masked weight, or non-finite weight.
    """
    known = {linear.name: linear for linear in linears}
    unknown = sorted(set(masks) - set(known))
    if unknown:
        raise ValueError(f"mask for '{unknown[0]}' fits no prunable linear of {place}: it has {', '.join(known)}")
    for name, mask in masks.items():
        weight, full = known[name].weight(module), known[name].full
        if mask.dtype != torch.bool or mask.shape != weight.shape:
            raise ValueError(
                f"mask of {full} must be bool of shape {tuple(weight.shape)}, "
                f"got {mask.dtype} of shape {tuple(mask.shape)}"
            )
        kept = keep_where(weight.detach(), mask.to(weight.device))
        left = 0 if torch.equal(kept, weight) else int(weight.count_nonzero() - kept.count_nonzero())
        if left:
            raise ValueError(f"{full} is not pruned as its mask says: {left} masked weights are not zero")
        if not all_finite(weight.detach()):
            raise InputError(f"{full} holds NaN or infinite weights after pruning")
