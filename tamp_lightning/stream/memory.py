"""A stream over a model that is in memory already."""

from collections.abc import Mapping

from torch import Tensor, nn
from transformers import PreTrainedModel

from tamp_lightning.checkpoint.facts import find_facts
from tamp_lightning.checkpoint.scales import scales_of
from tamp_lightning.methods.selection import ALL, Selection
from tamp_lightning.stream.base import check_pruned
from tamp_lightning.stream.rehearsal import rehearse


class MemoryStream:
    """Lends the model's own blocks: what the caller zeroes is zero in the model at once.

    Args:
        model: a model with real weights. A block that was loaded is left in eval mode and without gradients.
        selection: which linears are pruned.

    Raises:
        InputError: see :func:`tamp_lightning.checkpoint.facts.find_facts`.
    """

    def __init__(self, model: PreTrainedModel, selection: Selection = ALL) -> None:
        self.model, self.towers = model, selection.towers
        self.facts = rehearse(model, find_facts(model, selection))

    def load(self, index: int, dense: bool = False) -> nn.Module:
        """Return the model's block ``index``, in eval mode and without gradients; it is dense until it is pruned."""
        return self.model.get_submodule(f"{self.facts.blocks}.{index}").eval().requires_grad_(False)

    def scales(self, index: int) -> list[str]:
        """Norms' parameters and linears' biases of block ``index`` (see :class:`.Stream`)."""
        linears = self.facts.linears[index]
        return scales_of(self.model.get_submodule(f"{self.facts.blocks}.{index}"), linears) if linears else []

    def release(self, index: int) -> None:
        """Do nothing: the model keeps its blocks."""

    def commit(self, index: int, masks: Mapping[str, Tensor]) -> None:
        """Check that block ``index`` is pruned as ``masks`` say (see :class:`.Stream`)."""
        prefix = f"{self.facts.blocks}.{index}"
        check_pruned(self.model.get_submodule(prefix), prefix, self.facts.linears[index], masks)

    def commit_towers(self, masks: Mapping[str, Tensor]) -> None:
        """Check that towers and projector are pruned as ``masks`` say (see :class:`.Stream`)."""
        check_pruned(self.model, "towers and projector", self.facts.towers, masks)

    def finish(self) -> dict[str, str]:
        """Return an empty mapping: nothing is written."""
        return {}
